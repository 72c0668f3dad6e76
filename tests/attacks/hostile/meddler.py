"""Tries to reach into other processes: to end, to trace, to slow them down."""

from __future__ import annotations

import ctypes
import os
import signal

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
    victims = [os.getppid(), *job.arguments["victims"]]
    tries = {
        "kill": lambda pid: os.kill(pid, signal.SIGKILL),
        "stop": lambda pid: os.kill(pid, signal.SIGSTOP),
        "group": lambda pid: os.killpg(pid, signal.SIGKILL),
        "slow": lambda pid: os.setpriority(os.PRIO_PROCESS, pid, 19),
        "limit": lambda pid: _limit(pid),
        "pidfd": lambda pid: os.pidfd_open(pid),
        "memory": lambda pid: open(f"/proc/{pid}/mem", "r+b"),  # noqa: SIM115
        "score": lambda pid: open(f"/proc/{pid}/oom_score_adj", "w").write("1000"),  # noqa: SIM115
    }
    done = []
    for name, attempt in tries.items():
        for pid in victims:
            try:
                attempt(pid)
                done.append(name)
            except OSError:
                pass
    try:
        os.kill(-1, signal.SIGKILL)
        done.append("everyone")
    except OSError:
        pass
    return {"done": done}


def _limit(pid: int) -> None:
    import resource

    resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, 1))
