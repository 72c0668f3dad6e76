"""Says what the kernel says about this process."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

from worker.inside.job import InsideJob


def run(job: InsideJob) -> dict[str, object]:
    with open("/proc/self/status") as file:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    with open("/proc/self/oom_score_adj") as file:
        score = int(file.read())
    mask = os.umask(0o077)
    return {
        "status": lines,
        "score": score,
        "umask": mask,
        "limits": {
            name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
            for name in ("CORE", "DATA", "NOFILE", "FSIZE")
        },
        "descriptors": [number for number in range(1024) if _is_open(number)],
        "session": os.getsid(0) == os.getpid(),
        "regained": _regained(),
        "modules": sorted(
            name for name in ("sqlalchemy", "obstore", "app.store") if name in sys.modules
        ),
        "torch": "torch" in sys.modules,
    }


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _regained() -> list[str]:
    """Ways back to what was given up."""
    libc = ctypes.CDLL(None)
    done = [name for name in ("setuid", "setgid") if getattr(libc, name)(0) == 0 and os.getuid()]
    for name, soft in (("CORE", 1 << 20), ("DATA", 1 << 60), ("NOFILE", 1 << 20)):
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (soft, soft))
            done.append(name)
        except (OSError, ValueError):
            pass
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-1000")
        done.append("score")
    except OSError:
        pass
    return done
