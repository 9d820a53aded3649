"""Quiet hours: an oracle that walks minute by minute, at every clock change there is and anywhere else."""

import itertools
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.people.quiet_hours import QuietHours, end_of, is_quiet

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
MINUTES_A_DAY = 24 * 60
BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")


def rule(text: str, zone: ZoneInfo = BERLIN) -> QuietHours:
    start, end = text.split("–")
    return QuietHours(time.fromisoformat(start), time.fromisoformat(end), zone)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local(text: str, zone: ZoneInfo = BERLIN, *, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)


# The oracle: the definition, asked of each minute. Offsets are whole minutes since 1972, so nothing changes in between.


def minute_of_day(moment: datetime, zone: ZoneInfo) -> int:
    there = moment.astimezone(zone)
    return there.hour * 60 + there.minute


def covers(one: QuietHours, minute: int) -> bool:
    first = one.start.hour * 60 + one.start.minute
    length = (one.end.hour * 60 + one.end.minute - first) % MINUTES_A_DAY
    return (minute - first) % MINUTES_A_DAY < length


@cache
def loud_minutes(start: time, end: time) -> frozenset[int]:
    return frozenset(minute for minute in range(MINUTES_A_DAY) if not covers(QuietHours(start, end, BERLIN), minute))


def walked_end(rules: Sequence[QuietHours], moment: datetime) -> datetime | None:
    asked = moment
    while asked - moment <= timedelta(days=8):
        if not any(covers(one, minute_of_day(asked, one.zone)) for one in rules):
            return asked
        asked = asked.replace(second=0, microsecond=0) + MINUTE
    return None


# Every clock change of two years.


def clock_changes() -> Iterator[tuple[datetime, ZoneInfo]]:
    """Each change of an offset in 2026 and 2027: its first minute, and one of the zones that make it then."""
    looks = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(0, 2 * 365 * 24, 12)]
    seen = set()
    for zone in map(ZoneInfo, sorted(available_timezones())):
        offsets = [look.astimezone(zone).utcoffset() for look in looks]
        previous = None
        for before, after, old, new in zip(looks, looks[1:], offsets, offsets[1:], strict=False):
            if old == new:
                continue
            minutes = [before + MINUTE * number for number in range((after - before) // MINUTE + 1)]
            first = bisect_left(minutes, True, key=lambda minute: minute.astimezone(zone).utcoffset() == new)
            change = minutes[first]
            # The module stands on this, and it makes one zone speak for all that change so: no other change is near.
            assert previous is None or change - previous > 4 * DAY
            previous = change
            if (change, old, new) not in seen:
                seen.add((change, old, new))
                yield change, zone


def rules_around(change: datetime, zone: ZoneInfo) -> Iterator[QuietHours]:
    """Rules that people write, and rules whose edges lie before, in, at and after the gap or the repeated hour."""
    for text in ("22:00–07:00", "02:30–03:15", "01:59–02:01", "23:59–00:01", "02:00–02:30", "00:30–01:30"):
        yield rule(text, zone)
    edges = [minute_of_day(change - MINUTE, zone) + 1, minute_of_day(change, zone)]
    for edge, (start, end) in itertools.product(edges, [(-30, 15), (-1, 1), (0, 20), (-90, 0), (25, -10), (1, 0)]):
        hours, minutes = zip(*(divmod((edge + shift) % MINUTES_A_DAY, 60) for shift in (start, end)), strict=True)
        yield QuietHours(time(hours[0], minutes[0]), time(hours[1], minutes[1]), zone)


def test_at_every_clock_change_of_two_years_the_end_is_the_one_that_walking_finds() -> None:
    # Every minute where clocks are near the change; some a day ahead, whose night or day ends behind it.
    starts = [*range(-26 * 60, -100, 47), *range(-100, 100), *range(100, 12 * 60, 47)]
    changes = list(clock_changes())
    assert len(changes) > 50
    for change, zone in changes:
        moments = {number: change + MINUTE * number for number in range(starts[0], starts[-1] + 26 * 60)}
        walls = {number: minute_of_day(moment, zone) for number, moment in moments.items()}
        for one in rules_around(change, zone):
            loud = loud_minutes(one.start, one.end)
            ends = {}
            end = None  # behind the last minute walked, which no start needs: a KeyError below
            for number in reversed(moments):
                end = ends[number] = number if walls[number] in loud else end
            for number in starts:
                assert is_quiet(one, moments[number]) == (ends[number] != number), (one, moments[number])
                assert end_of([one], moments[number]) == moments[ends[number]], (one, moments[number])


# Anywhere else.

ZONES = st.sampled_from(sorted(available_timezones())).map(ZoneInfo)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2036, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 -- Hypothesis wants naive bounds
EDGES = st.builds(time, st.integers(0, 23), st.integers(0, 59)) | st.builds(time, st.integers(0, 23))


@st.composite
def some_rules(draw: st.DrawFn) -> list[QuietHours]:
    """One to three rules; some go on where the one before ends, as far as their zones are one."""
    rules: list[QuietHours] = []
    for _ in range(draw(st.integers(1, 3))):
        start = draw(EDGES | st.just(rules[-1].end) if rules else EDGES)
        zone = draw(ZONES | st.just(rules[-1].zone) if rules else ZONES)
        rules.append(QuietHours(start, draw(EDGES.filter(lambda end, start=start: end != start)), zone))
    return rules


@settings(max_examples=200, deadline=None)
@given(some_rules(), MOMENTS)
def test_the_end_is_the_one_that_walking_finds(rules: list[QuietHours], moment: datetime) -> None:
    for one in rules:
        assert is_quiet(one, moment) == covers(one, minute_of_day(moment, one.zone))
    assert end_of(rules, moment) == walked_end(rules, moment)


@given(some_rules(), MOMENTS, ZONES)
@settings(deadline=None)
def test_the_zone_in_which_a_moment_is_told_does_not_matter(
    rules: list[QuietHours], moment: datetime, zone: ZoneInfo
) -> None:
    told = moment.astimezone(zone)
    assert [is_quiet(one, told) for one in rules] == [is_quiet(one, moment) for one in rules]
    end = end_of(rules, told)
    assert end == end_of(rules, moment)
    assert end is None or end.tzinfo is UTC


# Examples.


def test_where_no_rule_holds_the_end_is_now() -> None:
    moment = local("2026-01-10T12:00:00.000001")
    assert end_of([], moment) == moment
    assert end_of([rule("22:00–07:00")], moment) == moment


@pytest.mark.parametrize(
    ("clock", "quiet"),
    [
        ("21:59:59.999999", False),
        ("22:00", True),
        ("23:59:59.999999", True),
        ("00:00", True),
        ("06:59:59.999999", True),
        ("07:00", False),
    ],
)
def test_a_night_goes_over_midnight_with_its_start_and_without_its_end(clock: str, quiet: bool) -> None:
    assert is_quiet(rule("22:00–07:00"), local(f"2026-01-10T{clock}")) is quiet


def test_a_day_is_quiet_with_its_start_and_without_its_end() -> None:
    lunch = rule("12:00–13:30")
    assert not is_quiet(lunch, local("2026-01-10T11:59:59.999999"))
    assert is_quiet(lunch, local("2026-01-10T12:00"))
    assert is_quiet(lunch, local("2026-01-10T13:29:59.999999"))
    assert not is_quiet(lunch, local("2026-01-10T13:30"))


def test_an_evening_ends_at_midnight() -> None:
    assert end_of([rule("22:00–00:00")], local("2026-01-10T22:00")) == local("2026-01-11T00:00")


def test_a_night_that_began_within_a_minute_ends_on_the_minute() -> None:
    assert end_of([rule("22:00–07:00")], local("2026-01-10T23:10:30.500000")) == local("2026-01-11T07:00")
    assert end_of([rule("22:00–07:00")], local("2026-01-11T06:59:59.999999")) == local("2026-01-11T07:00")


def test_a_night_is_an_hour_shorter_where_clocks_are_set_forward_and_longer_where_back() -> None:
    night = rule("22:00–07:00")
    assert end_of([night], utc("2026-03-28T21:00")) == utc("2026-03-29T05:00")
    assert end_of([night], utc("2026-10-24T20:00")) == utc("2026-10-25T06:00")


def test_an_end_that_the_clock_skips_is_the_first_moment_after_the_gap() -> None:
    # Berlin goes from 02:00 to 03:00.
    assert end_of([rule("22:00–02:30")], local("2026-03-28T23:00:07.123456")) == utc("2026-03-29T01:00")
    assert local("2026-03-29T03:00") == utc("2026-03-29T01:00")


def test_hours_that_the_clock_skips_are_not_quiet() -> None:
    assert end_of([rule("02:00–03:00")], utc("2026-03-29T00:59")) == utc("2026-03-29T00:59")
    assert end_of([rule("02:00–03:00")], utc("2026-03-29T01:00")) == utc("2026-03-29T01:00")


def test_a_moment_told_in_the_skipped_hour_is_the_one_that_it_means() -> None:
    skipped = local("2026-03-29T02:15")  # 01:15 UTC, when clocks show 03:15
    assert not is_quiet(rule("02:00–03:00"), skipped)
    assert end_of([rule("02:00–04:00")], skipped) == utc("2026-03-29T02:00")


def test_a_night_that_ends_in_the_repeated_hour_ends_twice() -> None:
    # Berlin goes from 03:00 back to 02:00: 02:30 is 00:30 UTC, and 01:30 UTC again.
    night = [rule("22:00–02:30")]
    assert end_of(night, local("2026-10-24T23:00")) == utc("2026-10-25T00:30")
    assert end_of(night, utc("2026-10-25T00:59:59.999999")) == utc("2026-10-25T00:59:59.999999")
    assert end_of(night, utc("2026-10-25T01:00")) == utc("2026-10-25T01:30")
    assert end_of(night, local("2026-10-25T02:15", fold=0)) == utc("2026-10-25T00:30")
    assert end_of(night, local("2026-10-25T02:15", fold=1)) == utc("2026-10-25T01:30")


def test_setting_the_clock_back_may_end_what_is_quiet() -> None:
    # Quiet from 02:30 on: a minute before 03:00 it is, and at 02:00 again it is not.
    assert end_of([rule("02:30–04:00")], utc("2026-10-25T00:59")) == utc("2026-10-25T01:00")


def test_lord_howe_changes_its_clock_by_half_an_hour() -> None:
    # Forward on 4 October 2026 from 02:00 (+10:30) to 02:30 (+11); back on 5 April 2026 from 02:00 (+11) to 01:30.
    night = [rule("22:00–02:15", LORD_HOWE)]
    assert end_of(night, local("2026-10-03T23:00", LORD_HOWE)) == utc("2026-10-03T15:30")
    assert end_of(night, local("2026-04-04T23:00", LORD_HOWE)) == utc("2026-04-04T15:45")
    assert end_of([rule("22:00–01:45", LORD_HOWE)], local("2026-04-04T23:00", LORD_HOWE)) == utc("2026-04-04T14:45")


def test_rules_that_chain_are_one_night() -> None:
    evening, night = rule("22:00–00:00"), rule("00:00–07:00")
    for rules in ([evening, night], [night, evening]):
        assert end_of(rules, local("2026-01-10T22:30")) == local("2026-01-11T07:00")


def test_rules_of_different_zones_chain() -> None:
    # 07:00 in Berlin is 01:00 in New York.
    rules = [rule("22:00–07:00", BERLIN), rule("00:30–06:00", NEW_YORK)]
    assert end_of(rules, local("2026-01-10T23:00")) == local("2026-01-11T06:00", NEW_YORK)


def test_rules_that_cover_the_whole_day_have_no_end() -> None:
    assert end_of([rule("06:00–18:00"), rule("18:00–06:00")], local("2026-01-10T12:00")) is None


def test_a_gap_of_a_minute_is_found() -> None:
    assert end_of([rule("06:00–18:00"), rule("18:01–06:00")], local("2026-01-10T19:00")) == local("2026-01-11T18:00")


def test_a_gap_that_only_a_clock_change_makes_is_found_within_eight_days() -> None:
    # New York changes on 8 March 2026, three weeks ahead of Berlin: until then 18:00 there is 00:00 in Berlin.
    rules = [rule("00:00–12:00", BERLIN), rule("06:00–18:00", NEW_YORK)]
    assert end_of(rules, utc("2026-02-28T10:00")) is None
    assert end_of(rules, utc("2026-02-28T22:00")) == utc("2026-03-08T22:00")
    assert end_of(rules, utc("2026-03-05T10:00")) == utc("2026-03-08T22:00")


def test_a_rule_says_what_it_is() -> None:
    assert str(rule("22:00–07:00")) == "22:00–07:00 Europe/Berlin"


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (time(7), time(7)),
        (time(22, 0, 1), time(7)),
        (time(22), time(7, 0, 0, 1)),
        (time(22, tzinfo=UTC), time(7)),
    ],
)
def test_what_is_no_rule_is_refused(start: time, end: time) -> None:
    with pytest.raises(ValueError, match="quiet hours"):
        QuietHours(start, end, BERLIN)
