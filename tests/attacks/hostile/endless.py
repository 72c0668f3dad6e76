"""Never ends by itself, whatever it is asked."""

from __future__ import annotations

import ctypes
import signal
import threading
from contextlib import suppress

from worker.inside.job import InsideJob


def run(job: InsideJob) -> dict[str, object]:
    for number in range(1, signal.NSIG):
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    job.tell("running", {})
    if job.arguments["how"] == "python":
        while True:
            pass
    if job.arguments["how"] == "threads":
        for _ in range(8):
            threading.Thread(target=_spin, daemon=True).start()
    ctypes.CDLL(None).sleep(600)
    return {}


def _spin() -> None:
    while True:
        pass
