"""Decisions of preferences: the whole order of rules as a table, every combination of it."""

import itertools
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from notifier.people.preferences import Circumstances, Decision, Rule, decide
from notifier.vocabulary.states import Channel

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
AFTERNOON = datetime(2026, 11, 21, 14, 30, tzinfo=UTC)
QUIET_NOW = {"start": "11:00", "end": "14:30"}

# Each circumstance, and its effect on an email in the category `news` at noon, on its own.
SUPPRESSED = {None: True, "hard_bounce": False, "": False}
CHANNELS: list[tuple[dict[str, bool] | None, bool]] = [
    (None, True),
    ({}, True),
    ({"email": True}, True),
    ({"sms": False}, True),
    ({"email": False}, False),
]
CATEGORIES: list[tuple[dict[str, dict[str, bool]] | None, bool]] = [
    (None, True),
    ({}, True),
    ({"news": {}}, True),
    ({"news": {"email": True}}, True),
    ({"news": {"email": False}}, False),
    ({"news": {"*": True}}, True),
    ({"news": {"*": False}}, False),
    ({"news": {"email": True, "*": False}}, True),
    ({"news": {"email": False, "*": True}}, False),
    ({"news": {"sms": False}}, True),
    ({"news": {"sms": True, "*": False}}, False),
    ({"other": {"email": False}}, True),
    ({"other": {"*": False}}, True),
    ({"*": {"email": False}}, False),
    ({"*": {"*": False}}, False),
    ({"*": {"sms": False}}, True),
    ({"*": {"email": True, "*": False}}, True),
    # A category that is named is not among the rest, whatever it leaves open.
    ({"news": {"sms": False}, "*": {"*": False}}, True),
    ({"news": {"email": True}, "*": {"*": False}}, True),
    ({"news": {"email": False}, "*": {"*": True}}, False),
]
QUIET: list[tuple[list[dict[str, Any]] | None, datetime]] = [
    (None, NOON),
    ([], NOON),
    ([QUIET_NOW], AFTERNOON),
    ([{**QUIET_NOW, "channels": []}], AFTERNOON),
    ([{**QUIET_NOW, "channels": ["push", "email"]}], AFTERNOON),
    ([{**QUIET_NOW, "channels": ["push", "sms"]}], NOON),
    ([{"start": "12:01", "end": "11:59"}], NOON),
    ([{"start": "09:00", "end": "13:00"}, {"start": "12:30", "end": "14:30"}], AFTERNOON),
]


def ask(
    *,
    suppressed: str | None = None,
    critical: bool = False,
    opted_out: bool = False,
    category: str | None = "news",
    channel: Channel = Channel.EMAIL,
    zone: str = "UTC",
    at: datetime = NOON,
    **preferences: Any,
) -> Decision:
    known = {name: value for name, value in preferences.items() if value is not None}
    about = Circumstances(channel, category, critical, suppressed, opted_out, known or None, ZoneInfo(zone))
    return decide(about, at)


@pytest.mark.parametrize(("channels", "channel_on"), CHANNELS)
@pytest.mark.parametrize(("categories", "category_on"), CATEGORIES)
def test_the_order_of_rules(
    channels: dict[str, bool] | None,
    channel_on: bool,
    categories: dict[str, dict[str, bool]] | None,
    category_on: bool,
) -> None:
    others = itertools.product(SUPPRESSED.items(), (False, True), (False, True), QUIET)
    for (suppressed, free), critical, opted_out, (quiet_hours, end) in others:
        decision = ask(
            suppressed=suppressed,
            critical=critical,
            opted_out=opted_out,
            channels=channels,
            categories=categories,
            quiet_hours=quiet_hours,
        )
        # The first rule that speaks decides.
        speakers = [
            (not free, Rule.SUPPRESSION, None),
            (critical, Rule.CRITICAL, NOON),
            (not channel_on, Rule.CHANNEL, None),
            (opted_out or not category_on, Rule.CATEGORY, None),
            (end != NOON, Rule.QUIET_HOURS, end),
            (True, None, NOON),
        ]
        _, rule, at = next(speaker for speaker in speakers if speaker[0])
        assert (decision.rule, decision.at, decision.allowed) == (rule, at, at is not None)
        assert decision.explanation.endswith(".")


@pytest.mark.parametrize("channel", Channel)
def test_each_channel_is_its_own(channel: Channel) -> None:
    off = {other.value: False for other in Channel if other is not channel}
    assert ask(channel=channel, channels=off, categories={"news": off}).rule is None
    assert ask(channel=channel, channels={channel.value: False}).rule is Rule.CHANNEL
    assert ask(channel=channel, categories={"news": {channel.value: False}}).rule is Rule.CATEGORY
    assert ask(channel=channel, categories={"news": {channel.value: True, "*": False}}).rule is None


@pytest.mark.parametrize(
    ("categories", "allowed"),
    [
        ({"general": {"email": False}}, False),
        ({"general": {"*": False}}, False),
        ({"*": {"*": False}}, False),
        ({"general": {"email": True}, "*": {"*": False}}, True),
        ({"news": {"*": False}}, True),
    ],
)
def test_what_has_no_category_is_general(categories: dict[str, dict[str, bool]], allowed: bool) -> None:
    assert ask(category=None, categories=categories).allowed is allowed
    assert ask(category="general", categories=categories).allowed is allowed


@pytest.mark.parametrize(
    ("at", "until"),
    [
        ("21:59:59.999999", None),
        ("22:00:00", "07:00"),
        ("23:59:59", "07:00"),
        ("00:00:00", "07:00"),
        ("06:59:59.999999", "07:00"),
        ("07:00:00", None),
    ],
)
def test_quiet_hours_include_their_start_and_not_their_end(at: str, until: str | None) -> None:
    moment = datetime.fromisoformat(f"2026-11-21T{at}+00:00")
    decision = ask(at=moment, quiet_hours=[{"start": "22:00", "end": "07:00"}])
    if until is None:
        assert (decision.rule, decision.at) == (None, moment)
    else:
        day = 22 if moment.hour >= 22 else 21
        assert (decision.rule, decision.at) == (Rule.QUIET_HOURS, datetime(2026, 11, day, 7, tzinfo=UTC))


@pytest.mark.parametrize(
    ("zone_of_rule", "zone_of_user", "end"),
    [
        (None, "UTC", "2026-11-21T13:00:00+00:00"),
        (None, "Asia/Kolkata", None),
        ("Asia/Kolkata", "UTC", None),
        ("UTC", "Asia/Kolkata", "2026-11-21T13:00:00+00:00"),
        ("Europe/Berlin", "Asia/Kolkata", "2026-11-21T12:00:00+00:00"),
    ],
)
def test_a_rules_zone_goes_before_the_users(zone_of_rule: str | None, zone_of_user: str, end: str | None) -> None:
    just_before = datetime(2026, 11, 21, 11, 59, tzinfo=UTC)
    rule = {"start": "11:00", "end": "13:00", "timezone": zone_of_rule}
    decision = ask(at=just_before, zone=zone_of_user, quiet_hours=[rule])
    assert decision.at == (datetime.fromisoformat(end) if end else just_before)


@pytest.mark.parametrize(
    ("at", "end"),
    [
        # Berlin, 29 March 2026: 02:00 is followed by 03:00. An end in between is the first moment after it.
        ("2026-03-28T22:30:00+00:00", "2026-03-29T01:00:00+00:00"),
        # 25 October 2026: 03:00 is followed by 02:00. An end that comes twice is its first.
        ("2026-10-24T22:30:00+00:00", "2026-10-25T00:30:00+00:00"),
    ],
)
def test_quiet_hours_end_where_clocks_change(at: str, end: str) -> None:
    decision = ask(
        at=datetime.fromisoformat(at), zone="Europe/Berlin", quiet_hours=[{"start": "22:00", "end": "02:30"}]
    )
    assert decision.at == datetime.fromisoformat(end)


def test_quiet_hours_that_never_end_have_no_moment() -> None:
    halves = [{"start": "00:00", "end": "12:00"}, {"start": "12:00", "end": "00:00"}]
    decision = ask(quiet_hours=halves)
    assert (decision.rule, decision.allowed, decision.at) == (Rule.QUIET_HOURS, True, None)
    assert ask(quiet_hours=halves, critical=True).at == NOON
