"""The client's retry policy: full jitter, bounds, and Retry-After in both of its forms."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier_client import RetryPolicy
from notifier_client.retries import parse_retry_after

NOW = datetime(2026, 11, 29, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        ("Sun, 29 Nov 2026 09:00:00 +0100", 0.0),
        ("Sun, 29 Nov 2026 08:00:30", 30.0),
        (format_datetime(NOW - timedelta(hours=1), usegmt=True), 0.0),
        *((junk, None) for junk in (None, "", "-5", "1.5", "soon", "٣", "Sun, 99 Nov 2026 08:00:00 GMT")),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(
    value=st.text(max_size=40) | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{1,9} .{0,6}")
)
def test_any_retry_after_is_a_time_or_nothing(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or seconds >= 0


@given(
    retry=st.integers(0, 5_000),
    retry_after=st.none() | st.floats(0, 30),
    backoff=st.floats(0, 100),
)
def test_a_wait_is_jittered_within_its_bounds_and_never_before_retry_after(
    retry: int, retry_after: float | None, backoff: float
) -> None:
    policy = RetryPolicy(retries=10_000, backoff=backoff, longest_wait=30, deadline=1_000)
    wait = policy.wait_before(retry, retry_after, 0)
    assert wait is not None
    floor = retry_after or 0.0
    assert floor <= wait <= floor + min(30.0, backoff * 2.0 ** min(retry, 30))


def test_the_jitter_is_full() -> None:
    waits = [RetryPolicy(backoff=8, longest_wait=30).wait_before(1, None, 0) or 0.0 for _ in range(500)]
    assert min(waits) < 1
    assert max(waits) > 15
    assert max(waits) <= 16


def test_it_ends_after_its_retries_its_deadline_and_before_too_long_a_wait() -> None:
    policy = RetryPolicy(retries=2, backoff=0, longest_wait=10, deadline=60)
    assert policy.wait_before(1, None, 0) == 0
    assert policy.wait_before(2, None, 0) is None
    assert policy.wait_before(0, 10, 50) == 10
    assert policy.wait_before(0, 10, 50.1) is None
    assert policy.wait_before(0, 10.1, 0) is None


@pytest.mark.parametrize("wrong", [{"retries": -1}, {"backoff": -0.1}, {"longest_wait": -1}, {"deadline": -1}])
def test_a_policy_that_cannot_be_followed_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        RetryPolicy(**wrong)
