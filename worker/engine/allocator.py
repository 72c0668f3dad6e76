"""Telling glibc to keep freed memory.

By default glibc gives blocks of some 100 kB and more back to the kernel as soon as they are freed.
A network run frees and asks for the same activations again and again, and a good part of the time
of a small network goes into zeroing the same pages anew.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MMAP_THRESHOLD = 32 * 2**20
_TRIM_THRESHOLD = 512 * 2**20


@cache
def keep_freed_memory() -> bool:
    """Set the process's malloc thresholds once; False where malloc has no such thresholds.

    Blocks up to 32 MiB come from the heap, and the heap's top is given back only beyond 512 MiB
    of free memory. Results don't change.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mapped = mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
    trimmed = mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
    return bool(mapped and trimmed)
