"""Takes memory without end, in several ways."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Any

from worker.inside.job import InsideJob

_UNIT = 16 << 20


def run(job: InsideJob) -> dict[str, object]:
    kept: list[Any] = []
    take = {
        "bytes": lambda: bytearray(_UNIT),
        "torch": _tensor,
        "malloc": _malloc,
        "shared": lambda: _touched(mmap.mmap(-1, _UNIT)),
        "private": lambda: _touched(mmap.mmap(-1, _UNIT, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)),
        "memfd": _memfd,
    }[job.arguments["how"]]
    for _ in range(4096):
        kept.append(take())
        job.tell("taken", {"bytes": len(kept) * _UNIT})
    return {"bytes": len(kept) * _UNIT}


def _tensor() -> Any:
    import torch

    return torch.ones(_UNIT, dtype=torch.uint8)


def _malloc() -> int:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    found = libc.malloc(ctypes.c_size_t(_UNIT))
    if found is None:
        os.abort()
    ctypes.memset(found, 1, _UNIT)
    return int(found)


def _touched(made: mmap.mmap) -> mmap.mmap:
    made.write(b"x" * _UNIT)
    return made


def _memfd() -> int:
    made = os.memfd_create("hostile")
    os.write(made, b"x" * _UNIT)
    return made
