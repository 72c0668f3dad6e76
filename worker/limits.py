"""What a worker may take from the machine that it shares with the web server."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NICENESS = 10
OOM_SCORE = 500
MEMORY_SHARE = 0.9
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def lower_priority() -> None:
    """Give way to the web server when both want the same core, or the last of the memory."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def limit_memory(limit: int | None = None) -> None:
    """Let an allocation that this machine can't serve fail in words, rather than the machine.

    By default nine tenths of its memory (or of what its container may have). Only the process's own
    memory counts: mapped files, as data sets are, come and go with the page cache.
    """
    wanted = limit or int(MEMORY_SHARE * machine_memory())
    with suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def machine_memory() -> int:
    """Bytes of memory that this process could have if nobody else wanted any."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            found = min(found, int(path.read_text()))
    return found
