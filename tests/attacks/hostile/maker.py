"""Makes things in its folder that may or may not be taken."""

from __future__ import annotations

import os

from worker.inside.job import InsideJob


def run(job: InsideJob) -> dict[str, object]:
    made = []
    for name, make in {
        "file": lambda: (job.folder / "file").write_bytes(b"12345678"),
        "folder": lambda: (job.folder / "folder").mkdir(),
        "link": lambda: (job.folder / "link").symlink_to(job.arguments["target"]),
        "fifo": lambda: os.mkfifo(job.folder / "fifo"),
        "second": lambda: os.link(job.folder / "file", job.folder / "second"),
    }.items():
        if name in job.arguments["names"]:
            try:
                make()
                made.append(name)
            except OSError:
                pass
    job.tell("made", {"names": made})
    return {"made": made}
