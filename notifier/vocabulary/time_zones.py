"""Time zones: IANA's names and rules from the `tzdata` package, the same on every machine.

The machine's own files would accept names that are no time zones (`localtime`, `right/Europe/Berlin`, which counts leap
seconds), differ between machines, and change under a running process.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo

#: IANA's placeholder for a clock that nobody has set: a name, but no zone.
_NO_ZONES: Final = frozenset({"Factory"})


@functools.cache
def names() -> frozenset[str]:
    """Return the names of all zones."""
    return frozenset(files("tzdata").joinpath("zones").read_text("utf-8").split()) - _NO_ZONES


@functools.cache
def zone(name: str) -> ZoneInfo:
    """Return the zone with exactly this name. Raises ValueError, its message a sentence for the caller."""
    if name not in names():
        raise ValueError("Not an IANA time zone, such as Europe/Berlin.")
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


UTC_ZONE: Final = zone("UTC")


@dataclass(frozen=True, slots=True)
class ChosenZone:
    """The zone that is used, and a sentence about those before it that are not known, where there are any."""

    zone: ZoneInfo
    note: str | None = None


def first_known(wanted: Iterable[str | None], last: ZoneInfo) -> ChosenZone:
    """Return the first of some stored names that is a zone, or `last`. None and empty names are skipped.

    A stored name may be unknown since an update of tzdata, or because an older release accepted it. Its row then uses
    the next zone, and says so.
    """
    unknown: list[str] = []
    for name in filter(None, wanted):
        try:
            return _chosen(zone(name), unknown)
        except ValueError:
            unknown.append(name)
    return _chosen(last, unknown)


def _chosen(found: ZoneInfo, unknown: list[str]) -> ChosenZone:
    if not unknown:
        return ChosenZone(found)
    named = " and ".join(f"{name[:64]!r}" for name in unknown)
    verb = "is no time zone that is" if len(unknown) == 1 else "are no time zones that are"
    return ChosenZone(found, f"{named} {verb} known; {found} is used instead.")
