"""Templates: versions by name, channel and locale, and the choice of a version for a notification."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.orm import Session

from notifier.models import Template
from notifier.vocabulary.errors import Invalid
from notifier.vocabulary.event_types import NAME
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel

#: The locale of users without one, and the last resort.
DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class TemplateVersion:
    """A version that is current."""

    id: UUID
    version: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The current versions of some templates: (name, channel, locale in lower case) → version."""

    versions: Mapping[tuple[str, str, str], TemplateVersion]

    def knows(self, name: str, channel: Channel | None = None) -> bool:
        """Return whether there is a template of that name (for that channel, if given)."""
        return any(each[0] == name and channel in {None, each[1]} for each in self.versions)

    def pick(self, name: str, channel: Channel, locale: str | None) -> TemplateVersion | None:
        """Return the version for a locale: `pt-BR`, else `pt`, else the default one; None if there is none of these."""
        for each in _fallbacks(locale):
            if found := self.versions.get((name, channel, each)):
                return found
        return None


#: The catalogue when no template is named.
EMPTY: Final = Catalogue({})


def _fallbacks(locale: str | None) -> Iterator[str]:
    parts = (locale or "").lower().replace("_", "-").split("-")
    while parts and parts[0]:
        yield "-".join(parts)
        parts.pop()
    yield DEFAULT


_CURRENT_VERSIONS: Final = text("""
    SELECT DISTINCT ON (name, channel, locale) name, channel, lower(locale) AS locale, id, version FROM templates
    WHERE name = ANY(:names) ORDER BY name, channel, locale, version DESC
""")
# Versions are counted one at a time for each name.
_LOCK_NAME: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 2))")


def catalogue(connection: Connection, names: Iterable[str | None]) -> Catalogue:
    """Load the current versions of the templates with these names; one query, none without names."""
    wanted = sorted({name for name in names if name is not None})
    if not wanted:
        return EMPTY
    rows = connection.execute(_CURRENT_VERSIONS, {"names": wanted})
    return Catalogue({(row.name, row.channel, row.locale): TemplateVersion(row.id, row.version) for row in rows})


def save(engine: Engine, name: str, fields: Mapping[str, Any]) -> Template:
    """Add a version; `fields` are the validated columns of a template. Raises Invalid where its name is none."""
    if not NAME.fullmatch(name):
        raise Invalid({"name": ["1 to 128 letters, digits, dots, dashes and underscores."]})
    with Session(engine, expire_on_commit=False) as session, session.begin():
        session.execute(_LOCK_NAME, {"name": name})
        version = session.scalar(
            select(func.coalesce(func.max(Template.version), 0) + 1).where(
                Template.name == name, Template.channel == fields["channel"], Template.locale == fields["locale"]
            )
        )
        template = Template(id=new_id(), name=name, version=version, created_at=datetime.now(UTC), **fields)
        session.add(template)
    return template
