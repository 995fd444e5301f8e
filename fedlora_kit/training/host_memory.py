"""Memory of the host that one training step frees and the next one wants again."""

from __future__ import annotations

import ctypes
from functools import lru_cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_BYTES = 1 << 30


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Let this process keep what it frees, up to 1 GiB, instead of handing it back to the system at once.

    The activations of a stack are blocks of some megabytes. glibc maps each of them anew in every step, and
    the system fills it with zeros page by page: some 5 to 10 % of a step (docs/performance.md). The largest
    memory that the process takes stays the same; it is held until the process ends.

    Returns:
        Whether this platform's C library has the setting (glibc: yes); without it nothing changes.
    """
    try:
        library = ctypes.CDLL(None)
        setting = library.mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(setting(_MMAP_THRESHOLD, _BYTES)) and bool(setting(_TRIM_THRESHOLD, _BYTES))
