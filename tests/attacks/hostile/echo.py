"""An honest recipe: says what it was given and what it finds around it."""

from __future__ import annotations

from worker.inside.job import InsideJob


def run(job: InsideJob) -> dict[str, object]:
    found = sorted(path.name for path in job.folder.iterdir())
    for number in range(job.arguments.get("messages", 0)):
        job.tell("number", {"number": number})
    (job.folder / "made").write_bytes(b"made inside")
    return {
        "arguments": job.arguments,
        "files": {name: path.read_bytes().decode() for name, path in job.files.items()},
        "found": found,
    }
