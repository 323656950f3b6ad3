"""The C library's heap stays near what is used of it. Python's own small objects are elsewhere; SQLite, what validates, and what is large are here.

glibc gives every few threads a heap of their own, and learns from each large block that is freed to keep the next ones: in a process that
has ten threads for its databases and answers requests of all sizes, that is twice what is used, and grows for hours.
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
ARENAS: Final = 2
"""Python runs one thread at a time; SQLite's may allocate beside it."""
LARGE_BYTES: Final = 512 * 1024
"""Each block of that size goes back to the system when it is freed. Sockets are read into half of that, with each request."""
SPARE_BYTES: Final = 4 * 1024 * 1024
"""So much may be free at the end of a heap: with little, each transaction gives back what the next one takes, and the system's work on these pages
takes as long as the transaction."""
CHOSEN_BY: Final = "MALLOC_"
TUNABLES: Final = "GLIBC_TUNABLES"
TUNED_BY: Final = "glibc.malloc."
"""Whoever sets such variables, or such tunables, has chosen for themselves."""


def hold() -> bool:
    """Whether this process's heap is bounded so from now on. Before there are threads; other C libraries than glibc have no such settings."""
    if TUNED_BY in os.environ.get(TUNABLES, "") or any(name.startswith(CHOSEN_BY) for name in os.environ):
        return False
    chosen = ((_M_ARENA_MAX, ARENAS), (_M_MMAP_THRESHOLD, LARGE_BYTES), (_M_TRIM_THRESHOLD, SPARE_BYTES))
    with suppress(ImportError, OSError, AttributeError):
        mallopt = _library().mallopt
        return all(mallopt(setting, value) for setting, value in chosen)
    return False


def give_back() -> bool:
    """Whether whole pages that nothing uses went back to the system. For a thread: some milliseconds, for which others may wait to allocate."""
    with suppress(ImportError, OSError, AttributeError):
        return bool(_library().malloc_trim(0))
    return False


def _library() -> Any:
    # Some builds of Python lack it.
    return import_module("ctypes").CDLL(None)
