"""Fills the disk, in several ways."""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from typing import Any

from worker.inside.job import InsideJob

_UNIT = b"x" * (1 << 18)


def run(job: InsideJob) -> dict[str, object]:
    how = job.arguments["how"]
    kept: list[Any] = []
    for number in range(4000):
        path = job.folder / f"{number}"
        if how == "one":
            with open("one", "ab") as file:
                file.write(_UNIT)
        elif how == "many":
            path.write_bytes(_UNIT)
        elif how == "deep":
            os.mkdir("deeper")
            os.chdir("deeper")
            with open("file", "wb") as file:
                file.write(_UNIT)
        elif how == "unlinked":
            kept.append(open(path, "wb", buffering=0))  # noqa: SIM115
            kept[-1].write(_UNIT)
            path.unlink()
        elif how == "mapped":
            with open(path, "w+b") as file:
                file.write(_UNIT)
                file.flush()
                kept.append(mmap.mmap(file.fileno(), len(_UNIT)))
            path.unlink()
        elif how == "nameless":
            kept.append(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115
            kept[-1].write(_UNIT)
        time.sleep(0.002)
    return {"written": 4000 * len(_UNIT)}
