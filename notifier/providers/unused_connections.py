"""Closes the connections that were kept after a call, and will not be used again.

A connection is used again for some seconds only, and its owner discards stale ones only at the next call. Without
this, connections opened at peak load stay open until the next peak: descriptors of ours, and of the receivers.
"""

import time
import weakref
from typing import Final, Protocol


class Keeper(Protocol):
    """Keeps connections between two calls. Used by several threads at once."""

    def close_unused(self, now: float) -> None:
        """Close the connections that are no longer used at this time on the monotonic clock."""
        ...


_keepers: Final[weakref.WeakSet[Keeper]] = weakref.WeakSet()


def register(keeper: Keeper) -> None:
    """Let `close_unused` reach a keeper of connections for as long as it lives."""
    _keepers.add(keeper)


def close_unused(now: float | None = None) -> None:
    """Close this process' connections that are no longer used.

    `now`: a time on the monotonic clock; by default the present.
    """
    moment = time.monotonic() if now is None else now
    for keeper in list(_keepers):
        keeper.close_unused(moment)
