"""Tries to leave a process behind that goes on after its job."""

from __future__ import annotations

import ctypes
import os
import time

from worker.inside.job import InsideJob

_CLONE_PARENT, _CLONE_VM, _SIGCHLD = 0x00008000, 0x00000100, 17


def run(job: InsideJob) -> dict[str, object]:
    done = []
    for name, attempt in {"fork": os.fork, "clone": _clone, "clone3": _clone3}.items():
        try:
            pid = attempt()
        except OSError:
            continue
        if pid == 0:
            _linger()
        done.append(name)
    return {"done": done}


def _clone() -> int:
    return _checked(ctypes.CDLL(None).syscall(56, _CLONE_PARENT | _SIGCHLD, 0, 0, 0, 0))


def _clone3() -> int:
    words = (ctypes.c_uint64 * 11)(0, 0, 0, 0, _SIGCHLD)
    return _checked(ctypes.CDLL(None).syscall(435, words, 88))


def _checked(pid: int) -> int:
    if pid < 0:
        raise OSError("clone")
    return pid


def _linger() -> None:
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
    except OSError:
        pass
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.1)
    os._exit(0)
