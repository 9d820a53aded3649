"""Memory that a process has freed, and that its allocator keeps."""

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Return freed memory to the kernel where the allocator is glibc's; it takes some milliseconds.

    glibc gives back the top of its heap alone: one small live object above a freed peak keeps the whole peak resident.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
