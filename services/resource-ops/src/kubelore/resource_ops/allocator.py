"""How glibc's allocator is told to treat a process with a thousand watches.

Each connection has a read buffer of 256 KB, of which a watch touches a few
kilobytes. As a mapping of its own it costs what is touched; out of the heap it
costs all of it, since what was there before has been touched. So blocks of that
size must neither come from the heap nor leave holes in it that they fit into.
Elsewhere than on glibc nothing happens.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

MAPPED_FROM = 64 * 1024
"""Blocks of so many bytes are mappings, given back as soon as they are freed."""
_M_MMAP_THRESHOLD = -3


def map_large_blocks() -> None:
    """To be called before the first connection is made."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM)


def give_back() -> None:
    """Return what lies free in the heap to the system, which the allocator does not do by itself."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
