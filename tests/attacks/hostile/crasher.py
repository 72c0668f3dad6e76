"""Ends in every way but the right one."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from worker.inside.job import InsideJob


def run(job: InsideJob) -> dict[str, object]:
    how = job.arguments["how"]
    if how == "segfault":
        ctypes.string_at(0)
    if how == "abort":
        os.abort()
    if how == "exit":
        os._exit(3)
    if how == "sys.exit":
        sys.exit(3)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exception":
        raise RuntimeError("no such thing in /secret/folder/file")
    if how == "recursion":
        return run(job)
    if how == "unsayable":
        return {"value": object()}  # type: ignore[dict-item]
    return {}
