"""Tries to change what it was given to read."""

from __future__ import annotations

import ctypes
import mmap
import os

from worker.inside.job import InsideJob


def run(job: InsideJob) -> dict[str, object]:
    path = str(job.files["input"])
    number = int(path.rpartition("/")[2])
    named = os.readlink(path)
    tries = {
        "write": lambda: os.write(number, b"hostile"),
        "truncate the descriptor": lambda: os.ftruncate(number, 0),
        "map": lambda: mmap.mmap(number, 4, access=mmap.ACCESS_WRITE),
        "reopen": lambda: os.write(os.open(path, os.O_RDWR), b"hostile"),
        "reopen to append": lambda: os.write(os.open(path, os.O_WRONLY | os.O_APPEND), b"hostile"),
        "truncate": lambda: os.truncate(path, 0),
        "truncate on opening": lambda: os.open(path, os.O_WRONLY | os.O_TRUNC),
        "by name": lambda: os.write(os.open(named, os.O_RDWR), b"hostile"),
        "unlink": lambda: os.unlink(named),
        "chmod": lambda: os.fchmod(number, 0o777),
        "link": lambda: os.link(path, "linked", follow_symlinks=True),
        "linkat": lambda: _linkat(number),
    }
    done = []
    for name, attempt in tries.items():
        try:
            attempt()
            done.append(name)
        except (OSError, ValueError):
            pass
    return {"done": done}


def _linkat(number: int) -> None:
    if ctypes.CDLL(None).linkat(number, b"", -100, b"linked", 0x1000) != 0:
        raise OSError("linkat")
