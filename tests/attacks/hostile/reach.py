"""Tries to read, list and write wherever it is told to, and says how far it came."""

from __future__ import annotations

import os

from worker.inside.job import InsideJob


def run(job: InsideJob) -> dict[str, object]:
    said = job.arguments
    return {
        "read": {path: _read(path) for path in said.get("read", [])},
        "listed": {path: _list(path) for path in said.get("list", [])},
        "written": {path: _write(path) for path in said.get("write", [])},
        "environment": dict(os.environ),
        "environments": _environments() if said.get("environments") else {},
    }


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return "got " + file.read(4000).decode("latin-1")
    except OSError as error:
        return type(error).__name__


def _list(path: str) -> str:
    try:
        return "got " + " ".join(os.listdir(path))
    except OSError as error:
        return type(error).__name__


def _write(path: str) -> str:
    tries = [
        lambda: open(path, "wb").write(b"hostile"),  # noqa: SIM115
        lambda: os.mkdir(path + ".folder"),
        lambda: os.symlink("/etc/passwd", path + ".link"),
        lambda: os.unlink(path),
        lambda: os.rename("made", path),
        lambda: os.truncate(path, 0),
        lambda: os.chmod(path, 0o777),
    ]
    with open("made", "wb") as file:
        file.write(b"hostile")
    said = []
    for attempt in tries:
        try:
            attempt()
            said.append("done")
        except OSError as error:
            said.append(type(error).__name__)
    return " ".join(said)


def _environments() -> dict[str, str]:
    """Of every process there may be, the worker among them."""
    numbers = ["self", str(os.getppid()), *map(str, range(1, 70000))]
    found = {}
    for number in numbers:
        said = _read(f"/proc/{number}/environ")
        if said.startswith("got "):
            found[number] = said
    return found
