"""Memory of a process: what stays is not searched for garbage, and what one that runs for long has freed goes back."""

import ctypes
import gc
from contextlib import suppress
from functools import cache
from typing import Final

#: New objects after which the young ones are searched for garbage; then after so many searches the older ones are too.
_THRESHOLDS: Final = (10_000, 20, 20)
#: The same while modules are imported.
_IMPORTING: Final = (50_000, 50, 50)


def give_back() -> None:
    """Return freed memory to the kernel where the allocator is glibc's; it takes some milliseconds.

    glibc gives back the top of its heap alone: one small live object above a freed peak keeps the whole peak resident.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def expect_imports() -> None:
    """Have the garbage collector look less often. Call it when a process starts.

    Modules are hundreds of thousands of objects and no garbage: to search them is a tenth of a start.
    """
    gc.set_threshold(*_IMPORTING)


@cache
def settle() -> None:
    """Have the garbage collector pass over all that exists by now: once, when a process is ready.

    Modules and caches stay for as long as the process. A search of all of them takes some 80 ms, in which no thread
    runs, and in a worker they took up to a tenth of its CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
