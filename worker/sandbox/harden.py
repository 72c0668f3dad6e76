"""Everything a child gives up before it touches anything uploaded."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from worker.sandbox import landlock, reach, seccomp
from worker.sandbox.capabilities import drop_capabilities

OOM_SCORE = 1000
OPEN_FILES = 1024
STACK_BYTES = 64 << 20


def harden(request: Mapping[str, Any], files: list[int]) -> None:
    """In this order: what needs rights first, what takes them away last.

    Raises OSError when a wall that was promised can't be put up: the job fails, unread.
    """
    os.umask(0o077)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    limit_resources(request["memory_bytes"], request["disk_bytes"])
    drop_capabilities()
    if abi := request["landlock_abi"]:
        restrict_files(abi, Path(request["folder"]), files)
    if request["seccomp"]:
        seccomp.install()


def restrict_files(abi: int, folder: Path, files: list[int]) -> None:
    rules = landlock.Ruleset(abi)
    rules.allow_all(reach.readable(), landlock.READ)
    rules.allow_all(reach.SYSTEM_FACTS, landlock.READ)
    rules.allow_all(reach.PROCESS_FACTS, landlock.READ)
    rules.allow_all(reach.DEVICES, landlock.READ_FILE)
    rules.allow(Path(os.devnull), landlock.READ_FILE | landlock.WRITE_FILE)
    for descriptor in files:
        rules.allow(descriptor, landlock.READ_FILE)
    rules.allow(folder, landlock.OWN)
    rules.enforce()


def limit_resources(memory_bytes: int, disk_bytes: int | None) -> None:
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    _limit(resource.RLIMIT_STACK, STACK_BYTES)
    _limit(resource.RLIMIT_DATA, memory_bytes)
    if disk_bytes is not None:
        _limit(resource.RLIMIT_FSIZE, disk_bytes)


def _limit(what: int, value: int) -> None:
    """Both the soft and the hard limit, never above the hard one there is."""
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(what, (value, value))
