"""Histograms: percentiles that are read from buckets are near those of the values themselves."""

from bisect import bisect_right
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.statistics.histogram import BOUNDS, BUCKETS, percentiles

SHARES = (0.5, 0.95, 0.99)


def histogram(values: list[float]) -> list[int]:
    counts = [0] * BUCKETS
    for value in values:
        counts[bisect_right(BOUNDS, value)] += 1
    return counts


def test_no_values_have_no_percentiles() -> None:
    assert percentiles([], SHARES) == [None, None, None]
    assert percentiles([0, 0, 0], SHARES) == [None, None, None]


def test_they_double_every_second_bucket() -> None:
    assert BOUNDS[:5] == (1.0, 1.414, 2.0, 2.828, 4.0)
    assert BOUNDS[-1] == 2**22
    assert len(BOUNDS) == BUCKETS - 1


def test_a_share_of_what_is_evenly_spread_is_found() -> None:
    values = [float(value) for value in range(1, 10_001)]
    exact = quantiles(values, n=100)
    for share, found in zip(SHARES, percentiles(histogram(values), SHARES), strict=True):
        assert found == pytest.approx(exact[round(share * 100) - 1], rel=0.2)


@given(st.lists(st.floats(min_value=0, max_value=1e9), min_size=1, max_size=200), st.floats(min_value=0, max_value=1))
def test_a_percentile_lies_in_the_bucket_of_the_value_that_it_stands_for(values: list[float], share: float) -> None:
    [found] = percentiles(histogram(values), [share])
    assert found is not None
    rank = share * len(values)
    at = sorted(values)[min(len(values) - 1, max(0, int(-(-rank // 1)) - 1))]
    bucket = bisect_right(BOUNDS, at)
    low = BOUNDS[bucket - 1] if bucket else 0.0
    high = BOUNDS[bucket] if bucket < len(BOUNDS) else BOUNDS[-1]
    assert low - 1 <= found <= high + 1, "rounded to a whole number where it is large"
    assert found == pytest.approx(min(max(found, low), high), rel=0.01, abs=0.01)


@given(st.lists(st.integers(min_value=0, max_value=50), max_size=BUCKETS))
def test_a_larger_share_is_never_smaller(counts: list[int]) -> None:
    found = [each for each in percentiles(counts, SHARES) if each is not None]
    assert found == sorted(found)


def test_histograms_without_their_last_buckets_mean_the_same() -> None:
    counts = histogram([3.0, 5.0, 80.0])
    shorter = counts[: max(place for place, count in enumerate(counts) if count) + 1]
    assert percentiles(shorter, SHARES) == percentiles(counts, SHARES)
