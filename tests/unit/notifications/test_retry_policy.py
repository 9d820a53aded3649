"""When a retry is due."""

from celery.utils.time import get_exponential_backoff_interval
from hypothesis import given
from hypothesis import strategies as st

from notifier.notifications.retries import RetryPolicy

_SECONDS = st.integers(0, 100_000)


@given(_SECONDS, _SECONDS, st.integers(0, 100))
def test_waits_are_celerys(backoff: int, backoff_max: int, failures: int) -> None:
    policy = RetryPolicy(backoff, backoff_max, 100, jitter=False)
    assert policy.seconds(failures) == get_exponential_backoff_interval(backoff, failures, backoff_max)


@given(_SECONDS, _SECONDS, st.integers(0, 100))
def test_with_jitter_no_wait_is_longer(backoff: int, backoff_max: int, failures: int) -> None:
    longest = RetryPolicy(backoff, backoff_max, 100, jitter=False).seconds(failures)
    assert 0 <= RetryPolicy(backoff, backoff_max, 100).seconds(failures) <= longest


def test_jitter_spreads_waits() -> None:
    policy = RetryPolicy(60, 3600, 5)
    assert len({policy.seconds(3) for _ in range(100)}) > 90
