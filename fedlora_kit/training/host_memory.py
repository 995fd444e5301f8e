"""Memory of the host that one training step frees and the next one wants again."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
#: bytes of the largest block that is kept (older glibc refuses more), and of the heap's free end
_BLOCK, _END = 1 << 25, 1 << 29


@contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """Within the block this process keeps most of what it frees, instead of handing it back at once.

    The activations of a stack are blocks of some megabytes. glibc maps each of them anew in every step, and
    the system fills it with zeros page by page: some 5 to 10 % of a step (docs/performance.md). Kept are
    blocks of up to 32 MiB, so the process may hold more than it uses, in gaps between blocks as well; after
    the block it gives back what is free. The setting itself stays: glibc cannot be asked for its own again.

    Yields:
        Whether this platform's C library has the setting (glibc: yes); without it nothing changes.
    """
    library = _glibc()
    kept = False
    if library is not None:
        kept = bool(library.mallopt(_MMAP_THRESHOLD, _BLOCK)) & bool(library.mallopt(_TRIM_THRESHOLD, _END))
    try:
        yield kept
    finally:
        if library is not None:
            library.malloc_trim(0)


@lru_cache(maxsize=1)
def _glibc() -> Any:
    """The C library, if it has what is asked of it."""
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim else None
    except (OSError, AttributeError, TypeError):
        return None
