"""Tries to reach into other processes: to end, to trace, to slow them down."""

from __future__ import annotations

import ctypes
import os
import resource

from worker.inside.job import InsideJob

NUMBERS = {"ptrace": 101, "process_vm_readv": 310, "mount": 165, "bpf": 321, "unshare": 272}
_SEIZE = 0x4206


def run(job: InsideJob) -> dict[str, object]:
    call = job.arguments.get("call")
    libc = ctypes.CDLL(None, use_errno=True)
    if call == "ptrace":
        return {"result": libc.syscall(NUMBERS[call], _SEIZE, os.getppid(), 0, 0)}
    if call is not None:
        return {"result": libc.syscall(NUMBERS[call], 0, 0, 0, 0, 0)}
    # Asked in ways that do no harm where a wall should be missing: signal 0 needs the same right as
    # one that ends, opening to write the same as writing.
    victims = [os.getppid(), *job.arguments["victims"]]
    tries = {
        "signal": lambda pid: os.kill(pid, 0),
        "group": lambda pid: os.killpg(pid, 0),
        "slow": lambda pid: os.setpriority(os.PRIO_PROCESS, pid, 19),
        "limit": lambda pid: resource.prlimit(pid, resource.RLIMIT_NOFILE),
        "pidfd": lambda pid: os.close(os.pidfd_open(pid)),
        "memory": lambda pid: os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR)),
        "score": lambda pid: os.close(os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY)),
        "everyone": lambda pid: os.kill(-1, 0),
    }
    done = set()
    for name, attempt in tries.items():
        for pid in victims:
            try:
                attempt(pid)
                done.add(name)
            except OSError:
                pass
    return {"done": sorted(done)}
