"""When a notification goes: on the wall clock of any zone, and what is too late."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from notifier.planning.reminders import Schedule, deadline_of, instant_of, moment_before, schedule
from notifier.vocabulary.durations import Duration, parse_iso
from notifier.vocabulary.states import Status

BERLIN = ZoneInfo("Europe/Berlin")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
MINUTE = timedelta(minutes=1)
NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)


def wall(text: str) -> datetime:
    return datetime.fromisoformat(text)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)


# The oracle: it walks through the minutes around. Offsets are whole minutes since 1972, and change on whole minutes.


def walked_instant(wall_clock: datetime, zone: ZoneInfo) -> datetime:
    """The first moment at which the clocks of a zone show `wall_clock`, or have just jumped over it."""
    moment = wall_clock.replace(tzinfo=UTC) - timedelta(hours=26)
    past = local(moment, zone)
    for _ in range(52 * 60):
        moment += MINUTE
        now = local(moment, zone)
        if now == wall_clock:
            return moment
        if past < wall_clock < now:
            return moment.replace(second=0, microsecond=0)
        past = now
    raise AssertionError("not within a day of it")


ZONES = st.sampled_from(sorted(available_timezones())).map(ZoneInfo)
CLOCKS = st.datetimes(datetime(1973, 1, 1), datetime(2037, 12, 31))  # noqa: DTZ001 -- what a wall clock shows
DAYS_OF_CHANGES = st.sampled_from(
    [(zone, day) for zone, *days in (
        ("Europe/Berlin", "2026-03-29", "2026-10-25"),
        ("America/New_York", "2026-03-08", "2026-11-01"),
        ("Australia/Lord_Howe", "2026-04-05", "2026-10-04"),
        ("America/Sao_Paulo", "2018-11-04", "2018-02-17", "2018-02-18"),
        ("Pacific/Apia", "2011-12-29", "2011-12-30", "2011-12-31"),
        ("Pacific/Kwajalein", "1993-08-20", "1993-08-21"),
        ("Asia/Kathmandu", "1986-01-01"),
        ("America/St_Johns", "2006-04-02", "2006-10-29"),
        ("Africa/Casablanca", "2026-02-15", "2026-03-22"),
        ("Antarctica/Troll", "2026-03-29", "2026-10-25"),
    ) for day in days]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(CLOCKS, ZONES)
def test_an_instant_is_the_one_that_walking_finds(wall_clock: datetime, zone: ZoneInfo) -> None:
    assert instant_of(wall_clock, zone) == walked_instant(wall_clock, zone)


@settings(max_examples=200, deadline=None)
@given(DAYS_OF_CHANGES, st.integers(0, 24 * 60 - 1), st.sampled_from([0, 1, 999_999, 59_999_999]))
@example(("Pacific/Apia", "2011-12-30"), 0, 0)
def test_so_it_is_on_days_of_clock_changes(change: tuple[str, str], minute: int, micros: int) -> None:
    zone, wall_clock = ZoneInfo(change[0]), wall(change[1]) + minute * MINUTE + timedelta(microseconds=micros)
    assert instant_of(wall_clock, zone) == walked_instant(wall_clock, zone)


@settings(max_examples=150, deadline=None)
@given(CLOCKS, ZONES, ZONES, st.integers(0, 400), st.timedeltas(timedelta(), timedelta(days=40)))
def test_a_lead_time_goes_back_days_on_the_wall_clock_and_then_exactly(
    clock: datetime, told_in: ZoneInfo, zone: ZoneInfo, days: int, exact: timedelta
) -> None:
    target = clock.replace(tzinfo=told_in)
    moment = moment_before(target, Duration(days, exact), zone)
    day = target.astimezone(UTC)
    if days:
        day = walked_instant(local(target, zone) - timedelta(days=days), zone)
    assert moment == day - exact
    assert moment.utcoffset() == timedelta()


@settings(max_examples=150, deadline=None)
@given(CLOCKS, ZONES, st.integers(1, 400))
def test_days_before_the_clock_shows_the_same_time_or_jumps_over_it(clock: datetime, zone: ZoneInfo, days: int) -> None:
    target = clock.replace(tzinfo=UTC)
    shown = local(moment_before(target, Duration(days, timedelta()), zone), zone)
    meant = local(target, zone) - timedelta(days=days)
    assert shown == meant or (
        shown > meant and local(shown.replace(tzinfo=zone).astimezone(UTC) - MINUTE, zone) < meant
    )


@pytest.mark.parametrize(
    ("clock", "zone", "moment"),
    [
        ("2026-01-10T09:00", BERLIN, "2026-01-10T08:00"),
        ("2026-07-10T09:00", BERLIN, "2026-07-10T07:00"),
        ("2026-03-29T01:59:59.999999", BERLIN, "2026-03-29T00:59:59.999999"),
        ("2026-03-29T02:00", BERLIN, "2026-03-29T01:00"),
        ("2026-03-29T02:30", BERLIN, "2026-03-29T01:00"),
        ("2026-03-29T02:59:59.999999", BERLIN, "2026-03-29T01:00"),
        ("2026-03-29T03:00", BERLIN, "2026-03-29T01:00"),
        ("2026-10-25T02:00", BERLIN, "2026-10-25T00:00"),
        ("2026-10-25T02:30", BERLIN, "2026-10-25T00:30"),
        ("2026-10-25T03:00", BERLIN, "2026-10-25T02:00"),
        ("2026-10-04T02:15", LORD_HOWE, "2026-10-03T15:30"),
        ("2026-04-05T01:45", LORD_HOWE, "2026-04-04T14:45"),
        ("2018-11-04T00:00", ZoneInfo("America/Sao_Paulo"), "2018-11-04T03:00"),
        ("2011-12-30T12:00", ZoneInfo("Pacific/Apia"), "2011-12-30T10:00"),
    ],
)
def test_instants(clock: str, zone: ZoneInfo, moment: str) -> None:
    assert instant_of(wall(clock), zone) == utc(moment)


@pytest.mark.parametrize(
    ("target", "lead", "moment"),
    [
        ("2026-03-31T09:00+02:00", "P7D", "2026-03-24T08:00"),
        ("2026-03-31T09:00+02:00", "PT168H", "2026-03-24T07:00"),
        ("2026-10-27T09:00+01:00", "P7D", "2026-10-20T07:00"),
        ("2026-10-27T09:00+01:00", "PT168H", "2026-10-20T08:00"),
        ("2026-03-30T02:30+02:00", "P1D", "2026-03-29T01:00"),
        ("2026-10-26T02:30+01:00", "P1D", "2026-10-25T00:30"),
        ("2026-03-30T01:00+02:00", "P1DT1H", "2026-03-28T23:00"),
        ("2026-11-21T09:00:00.000001Z", "PT0S", "2026-11-21T09:00:00.000001"),
        # At the second 02:30 of that night. No days are counted, so it is the same moment.
        ("2026-10-25T01:30Z", "P0D", "2026-10-25T01:30"),
        ("2026-10-25T01:30Z", "PT1M", "2026-10-25T01:29"),
    ],
)
def test_moments_before_targets_in_berlin(target: str, lead: str, moment: str) -> None:
    assert moment_before(datetime.fromisoformat(target), parse_iso(lead), BERLIN) == utc(moment)


def test_a_moment_before_the_calendar_begins_overflows() -> None:
    with pytest.raises(OverflowError):
        moment_before(datetime(1, 1, 2, tzinfo=UTC), parse_iso("P7D"), ZoneInfo("UTC"))
    with pytest.raises(OverflowError):
        moment_before(datetime(1, 1, 2, tzinfo=UTC), parse_iso("PT48H"), ZoneInfo("UTC"))


EARLY, LATE = NOW + timedelta(hours=1), NOW + timedelta(hours=2)


@pytest.mark.parametrize(
    ("expires_at", "target_date", "lead_time", "deadline"),
    [
        (None, None, None, None),
        (EARLY, None, None, EARLY),
        (None, LATE, "P7D", LATE),
        (EARLY, LATE, "PT1S", EARLY),
        (LATE, EARLY, "PT1S", EARLY),
        (None, LATE, "PT0S", None),
        (None, LATE, "P0D", None),
        (LATE, EARLY, "PT0S", LATE),
    ],
)
def test_a_reminder_is_of_use_until_its_target(
    expires_at: datetime | None, target_date: datetime | None, lead_time: str | None, deadline: datetime | None
) -> None:
    assert deadline_of(expires_at, target_date, lead_time) == deadline


BEFORE, MOMENT = NOW - timedelta(hours=1), timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("due_at", "deadline", "expected"),
    [
        (None, None, Schedule(Status.QUEUED, None)),
        (BEFORE, None, Schedule(Status.QUEUED, None)),
        (NOW, None, Schedule(Status.QUEUED, None)),
        (NOW + MOMENT, None, Schedule(Status.SCHEDULED, NOW + MOMENT)),
        (None, EARLY, Schedule(Status.QUEUED, None)),
        (BEFORE, EARLY, Schedule(Status.QUEUED, None)),
        (EARLY, LATE, Schedule(Status.SCHEDULED, EARLY)),
        (LATE - MOMENT, LATE, Schedule(Status.SCHEDULED, LATE - MOMENT)),
        (LATE, LATE, Schedule(Status.EXPIRED, None)),
        (LATE, EARLY, Schedule(Status.EXPIRED, None)),
        (None, NOW, Schedule(Status.EXPIRED, None)),
        (None, NOW + MOMENT, Schedule(Status.QUEUED, None)),
        (BEFORE, BEFORE + MOMENT, Schedule(Status.EXPIRED, None)),
        (EARLY, BEFORE, Schedule(Status.EXPIRED, None)),
    ],
)
def test_how_a_notification_begins(due_at: datetime | None, deadline: datetime | None, expected: Schedule) -> None:
    assert schedule(NOW, due_at, deadline) == expected
