"""ISO 8601 durations: days as the calendar has them, the rest exact."""

import contextlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.vocabulary.durations import Duration, parse_iso


@pytest.mark.parametrize(
    ("text", "days", "exact"),
    [
        ("P7D", 7, timedelta()),
        ("P2W", 14, timedelta()),
        ("P1W2D", 9, timedelta()),
        ("PT30M", 0, timedelta(minutes=30)),
        ("PT24H", 0, timedelta(hours=24)),
        ("PT90S", 0, timedelta(seconds=90)),
        ("PT1.5S", 0, timedelta(seconds=1.5)),
        ("PT0.000001S", 0, timedelta(microseconds=1)),
        ("P1DT2H3M4S", 1, timedelta(hours=2, minutes=3, seconds=4)),
        ("P0D", 0, timedelta()),
        ("PT0S", 0, timedelta()),
        ("P007D", 7, timedelta()),
        ("P36525D", 36_525, timedelta()),
    ],
)
def test_durations_that_there_are(text: str, days: int, exact: timedelta) -> None:
    assert parse_iso(text) == Duration(days, exact)


@pytest.mark.parametrize(
    "text",
    [
        *("", "P", "PT", "P1DT", "7D", "P7", "7", "p7d", "P1d", "P-1D", "-P1D", "+P1D", "P1.5D", "PT1.5H", "P1D2H"),
        *("PT1D", "PT1S1M", "P1D1W", " P7D", "P7D ", "P7D\n", "P1Y", "P1M", "PT.5S", "PT1.S", "PT1,5S", "P1D/P2D"),
        *("PT0.1234567S", "P٧D", "PT٣H", "P²D", "P9999999D", "PT9999999999H"),
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^Not an ISO 8601 duration such as P7D or PT30M\.$"):
        parse_iso(text)


@pytest.mark.parametrize("text", ["P36526D", "P36525DT0.000001S", "P5218W", "PT876601H", "P999999D", "P999999W"])
def test_more_than_a_hundred_years_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="hundred years"):
        parse_iso(text)


@given(
    st.integers(0, 99),
    st.integers(0, 9999),
    st.integers(0, 9999),
    st.integers(0, 9999),
    st.integers(0, 99_999),
    st.integers(0, 999_999),
)
def test_its_parts_add_up(weeks: int, days: int, hours: int, minutes: int, seconds: int, micros: int) -> None:
    duration = parse_iso(f"P{weeks}W{days}DT{hours}H{minutes}M{seconds}.{micros:06}S")
    assert duration.days == 7 * weeks + days
    assert duration.exact == timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=micros)
    assert duration.total == timedelta(days=duration.days) + duration.exact


@given(st.text(alphabet="PTWDHMS0123456789.-+ \n", max_size=12))
def test_no_text_breaks_it(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_iso(text).total >= timedelta()
