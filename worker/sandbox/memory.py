"""How much memory a child may have when nobody says."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

MEMORY_SHARE = 0.9
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def default_memory() -> int:
    """Nine tenths of the memory of this machine, or of what its container may have, in bytes."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            found = min(found, int(path.read_text()))
    return int(MEMORY_SHARE * found)
