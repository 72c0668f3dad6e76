"""An honest recipe: says what it was given."""

from __future__ import annotations

from worker.inside.job import InsideJob


def run(job: InsideJob) -> dict[str, object]:
    for number in range(job.arguments.get("messages", 0)):
        job.tell("number", {"number": number})
    (job.folder / "made").write_bytes(b"made inside")
    return {
        "arguments": job.arguments,
        "files": {name: path.read_bytes().decode() for name, path in job.files.items()},
    }
