"""Commands in the documentation."""

import re

from tests.support.paths import ROOT

PAGE = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")


def blocks(heading: str) -> list[str]:
    """The commands below a heading, block by block."""
    titles = re.findall(r"^##+ (.+)$", PAGE, re.MULTILINE)
    text = dict(zip(titles, re.split(r"^##+ .+$", PAGE, flags=re.MULTILINE)[1:], strict=True))[heading]
    found: list[str] = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found
