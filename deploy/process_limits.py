"""Limits of a worker process: memory returned to the kernel, and open file descriptors."""

import contextlib
import ctypes
import os
import resource
from typing import Final

#: glibc's names for what mallopt() sets (malloc.h).
_ARENA_MAX: Final = -8
_MMAP_THRESHOLD: Final = -3
#: Arenas: each thread would have one of its own, which keeps the most that the thread has ever needed.
_ARENAS: Final = 2
#: Bytes from which on a block is the kernel's own, and goes back to it at once.
_LARGE: Final = 256 * 1024
#: Descriptors that are asked for. 36 sends at once (threads and stragglers), of 64 webhooks each, take 2,400 of them;
#: many systems start a process with 1,024.
_DESCRIPTORS: Final = 16_384


def give_memory_back() -> None:
    """Have glibc's malloc return the memory of large rows. Call it before the first thread."""
    chosen = {_ARENA_MAX: ("MALLOC_ARENA_MAX", _ARENAS), _MMAP_THRESHOLD: ("MALLOC_MMAP_THRESHOLD_", _LARGE)}
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, (variable, value) in chosen.items():
            if variable not in os.environ:
                mallopt(parameter, value)


def raise_descriptors() -> None:
    """Raise the limit of open descriptors as far as needed and permitted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
