"""Time zones are IANA's, from the tzdata package, and the same on every machine."""

import os
import subprocess
import sys
import zoneinfo
from datetime import UTC, datetime
from typing import Any

import marshmallow as ma
import pytest

from api.schemas.fields import Zone
from config import parsers
from notifier.content.templates import EMPTY
from notifier.people.preferences import Circumstances, Rule, decide
from notifier.people.users import Person
from notifier.planning.plans import Origin, Plan, Planner
from notifier.planning.reminders import moment_before
from notifier.resending.reschedule import _moved
from notifier.vocabulary import time_zones
from notifier.vocabulary.durations import parse_iso
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel
from notifier.vocabulary.time_zones import UTC_ZONE, first_known, zone

#: Names to which a machine's own files, or Python's look-up of them, may answer.
NO_ZONES = (
    *("right/Europe/Berlin", "posix/Europe/Berlin", "localtime", "posixrules", "Factory", "zone.tab", "tzdata.zi"),
    *("/usr/share/zoneinfo/Europe/Berlin", "Europe/../Europe/Berlin", "./UTC", "../zones", "Europe", "Europe/", ""),
    *("europe/berlin", "EUROPE/BERLIN", "utc", " UTC", "UTC ", "UTC\n", "Europe/Berlin\0", "Europe\\Berlin", "CEST+2"),
    *("Europe/Berlín", "\ud800", "x" * 5000, "UTC+2", "leapseconds", "iso3166.tab"),
)


@pytest.mark.parametrize("name", NO_ZONES)
def test_what_is_no_name_of_iana_is_no_zone(name: str) -> None:
    with pytest.raises(ValueError, match=r"^Not an IANA time zone, such as Europe/Berlin\.$"):
        zone(name)
    with pytest.raises(ma.ValidationError):
        Zone().deserialize(name)
    with pytest.raises(ValueError, match="is not an IANA time zone"):
        parsers.zone(name)


def test_every_name_of_the_package_is_a_zone() -> None:
    assert len(time_zones.names()) > 550
    for name in time_zones.names():
        assert zone(name).key == name == str(zone(name))
        assert zone(name) is zone(name)
        datetime.now(UTC).astimezone(zone(name))


def test_rules_come_from_the_package_whatever_the_machine_has() -> None:
    """A machine whose own files say otherwise, or that has none, knows the same zones by the same rules."""
    program = (
        "from notifier.vocabulary.time_zones import names, zone; from datetime import datetime; import hashlib;"
        "found = {name: str([zone(name).utcoffset(datetime(year, month, 1)) for year in (1950, 1999, 2026, 2050)"
        " for month in (1, 7)]) for name in sorted(names())};"
        "print(len(found), hashlib.sha256(str(found).encode()).hexdigest())"
    )
    usual = {**os.environ, "PYTHONWARNINGS": "error"}
    machines = (usual, {**usual, "PYTHONTZPATH": ""}, {**usual, "PYTHONTZPATH": "/nowhere", "TZ": "Asia/Tokyo"})
    told = {subprocess.check_output([sys.executable, "-c", program], env=each, text=True) for each in machines}
    assert len(told) == 1
    with_package_alone = zoneinfo.ZoneInfo.no_cache("Europe/Berlin")
    moment = datetime(2026, 7, 1, tzinfo=UTC)
    assert moment.astimezone(zone("Europe/Berlin")).utcoffset() == moment.astimezone(with_package_alone).utcoffset()


def test_a_stored_name_that_is_not_known_gives_way_to_the_next_and_says_so() -> None:
    berlin = zone("Europe/Berlin")
    assert first_known((None, "", "Europe/Berlin", "Asia/Tokyo"), UTC_ZONE) == time_zones.ChosenZone(berlin)
    assert first_known((None, None), berlin) == time_zones.ChosenZone(berlin)
    chosen = first_known(("right/Europe/Berlin", "Europe/Berlin"), UTC_ZONE)
    assert chosen.zone is berlin
    assert chosen.note == "'right/Europe/Berlin' is no time zone that is known; Europe/Berlin is used instead."
    chosen = first_known(("Mars/Phobos", "localtime"), UTC_ZONE)
    assert chosen.zone is UTC_ZONE
    assert chosen.note == "'Mars/Phobos' and 'localtime' are no time zones that are known; UTC is used instead."


@pytest.mark.parametrize(
    ("rule_zone", "user_zone", "used"),
    [
        ("Asia/Tokyo", "Europe/Berlin", "Asia/Tokyo"),
        (None, "Europe/Berlin", "Europe/Berlin"),
        ("Mars/Phobos", "Europe/Berlin", "Europe/Berlin"),
        ("Mars/Phobos", "Mars/Deimos", "America/New_York"),
        (None, "Mars/Deimos", "America/New_York"),
        (None, None, "America/New_York"),
    ],
)
def test_quiet_hours_go_by_the_first_zone_that_is_known(
    rule_zone: str | None, user_zone: str | None, used: str
) -> None:
    rule: dict[str, Any] = {"start": "00:00", "end": "23:59", "timezone": rule_zone}
    about = Circumstances(
        *(Channel.PUSH, None, False, None, False, {"quiet_hours": [rule]}),
        zone=zone("America/New_York"),
        user_zone=user_zone,
    )
    decision = decide(about, datetime(2026, 7, 1, 12, tzinfo=UTC))
    assert decision.rule is Rule.QUIET_HOURS
    assert decision.at is not None
    assert decision.at.astimezone(zone(used)).strftime("%H:%M") == "23:59"
    unknown = [name for name in (rule_zone, user_zone) if name and name.startswith("Mars")]
    assert all(name in decision.explanation for name in unknown)
    assert ("is used instead" in decision.explanation) == bool(unknown)
    awake = decide(about, decision.at)
    assert ("is used instead" in awake.explanation) == bool(unknown)


@pytest.mark.parametrize(
    ("asked", "users", "used"),
    [
        ("Asia/Tokyo", "Europe/Berlin", "Asia/Tokyo"),
        ("right/Asia/Tokyo", "Europe/Berlin", "Europe/Berlin"),
        ("right/Asia/Tokyo", "Mars/Phobos", "America/New_York"),
        (None, "Mars/Phobos", "America/New_York"),
    ],
)
def test_reminders_go_by_the_first_zone_that_is_known(asked: str | None, users: str, used: str) -> None:
    target = datetime(2040, 7, 1, 12, tzinfo=UTC)
    plan = Plan(user_id="u", channels=(Channel.EMAIL,), target_date=target, lead_time=("P1D",), timezone=asked)
    person = Person("u", "u@example.com", None, (), None, None, users, None, "{}")
    planner = Planner(lambda _: 5.0, frozenset(Channel), zone("America/New_York"))
    [row] = planner.rows(plan, Origin(new_id(), "test"), person, EMPTY)
    assert (row["status"], row["timezone"]) == ("scheduled", used)
    assert row["due_at"] == moment_before(target, parse_iso("P1D"), zone(used))
    assert ("is used instead" in row.get("explanation", "")) == (used not in {asked})
    if asked is None:
        assert "Mars/Phobos" in row["explanation"]


def test_a_reminder_that_is_moved_goes_by_the_first_zone_that_is_known() -> None:
    row = {
        **{"send_at": None, "target_date": datetime(2040, 7, 1, tzinfo=UTC), "expires_at": None, "lead_time": "P1D"},
        **{"reason": None, "explanation": None, "rule": None, "waits_for": None, "deferred_at": None},
        "timezone": "Mars/Phobos",
        "due_at": datetime(2040, 6, 30, tzinfo=UTC),
    }
    target = datetime(2040, 11, 5, 12, tzinfo=UTC)
    moved = _moved(row, {"target_date": target}, zone("America/New_York"))
    assert moved["due_at"] == moment_before(target, parse_iso("P1D"), zone("America/New_York"))
    assert "Mars/Phobos" in moved["explanation"]
    assert _moved({**row, "timezone": "UTC"}, {"target_date": target}, UTC_ZONE)["explanation"] is None
