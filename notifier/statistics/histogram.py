"""Histograms with a fixed set of buckets, so that those of any minutes can be added up.

A bucket is twice as long as the one two before it: from 1 ms to 70 minutes there are 46. A percentile that is read from
them lies in the right bucket, so it is 41 % off at worst, and far less where values are spread within the bucket.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

#: Where each bucket but the first begins, in milliseconds; the last one has no end.
BOUNDS: Final = tuple(round(2 ** (step / 2), 3) for step in range(45))
#: Bucket i holds the values from BOUNDS[i - 1] up to BOUNDS[i].
BUCKETS: Final = len(BOUNDS) + 1

#: The bounds as an array in SQL, for width_bucket(), which returns the index of a value's bucket.
BOUNDS_IN_SQL: Final = f"CAST('{{{','.join(map(str, BOUNDS))}}}' AS double precision[])"


def percentiles(counts: Sequence[int], shares: Sequence[float]) -> list[float | None]:
    """Return the value below which each share of all values lies, in milliseconds; None where there are no values.

    `counts`: values by bucket; buckets at the end may be missing. Values of the last bucket count as its beginning.
    """
    sums = list(accumulate(counts))
    total = sums[-1] if sums else 0
    if not total:
        return [None] * len(shares)
    found: list[float | None] = []
    for share in shares:
        rank = share * total
        # Among buckets with the same sum the first one has the values. A share of 0 lies before the first value.
        bucket = bisect_left(sums, rank or 1)
        count = counts[bucket]
        if bucket == len(BOUNDS):
            value = BOUNDS[-1]
        else:
            value = _LOWS[bucket] + _WIDTHS[bucket] * (count - sums[bucket] + rank) / count
        found.append(round(value, _DIGITS[bucket]))
    return found


# Within a bucket, values count as evenly spread.
_LOWS: Final = (0.0, *BOUNDS)
_WIDTHS: Final = tuple(high - low for low, high in zip(_LOWS, BOUNDS, strict=False))
#: Digits behind the point, by bucket: three in all, since more would look exact.
_DIGITS: Final = tuple(2 if low < 10 else 1 if low < 100 else 0 for low in _LOWS)
