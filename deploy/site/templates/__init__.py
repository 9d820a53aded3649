"""Templates of the generated pages: Jinja that writes Markdown."""

from typing import Final

import jinja2

_TEMPLATES: Final = jinja2.Environment(  # noqa: S701 -- it writes Markdown, from our own code's texts
    loader=jinja2.PackageLoader("deploy.site", "templates"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def rendered(template: str, **values: object) -> str:
    """Return a page made of a template."""
    return _TEMPLATES.get_template(template).render(values)
