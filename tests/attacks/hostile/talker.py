"""Says too much: on stdout, on stderr, or in messages."""

from __future__ import annotations

import os
import sys

from worker.inside.job import InsideJob


def run(job: InsideJob) -> dict[str, object]:
    how = job.arguments["how"]
    if how == "one message":
        job.tell("huge", {"text": "x" * (3 << 20)})
    while how == "messages":
        job.tell("again", {"text": "x" * 1000})
    while how == "stdout":
        print("\x1b[2Jhostile" * 100)
    while how == "stderr":
        sys.stderr.write("hostile" * 100)
    while how == "descriptor":
        os.write(2, b"\0" * 65536)
    print("\x1b[2Jescape \x07 \x9b \u202e end")
    return {}
