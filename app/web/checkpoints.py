"""Pruned checkpoints, made by a child process and kept for the next time.

The web server has no torch, so the file is computed by `worker.export_checkpoint` from the uploaded
one. What it depends on is in the file's name here; a file that is there is right.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.domain.errors import (
    Conflict,
    InvalidFile,
    InvalidInput,
    NotFound,
    PrunescopeError,
    StorageFull,
)
from app.settings import Settings

FORMATS: Mapping[str, str] = {
    "safetensors": ".safetensors",
    "pth": ".pth",
    "masks": ".masks.safetensors",
    "recipe": ".recipe.json",
}
PROBLEMS = (409, 422, 503, 504, 507)
"""The statuses of what may go wrong with a checkpoint."""
LATER_FORMATS = ("pt2", "onnx")
MODULE = "worker.export_checkpoint"
TIME_LIMIT_SECONDS = 300.0
MAX_AT_ONCE = 2
MAX_KEPT = 32
MAX_ERROR_BYTES = 64 * 1024


class ExportFailed(PrunescopeError):
    """The child process could not make the file; its own sentence says why."""

    code = "export-failed"
    status = 500
    title = "The checkpoint could not be made"


class ExportTimeout(PrunescopeError):
    code = "export-timeout"
    status = 504
    title = "The checkpoint took too long"


class ShuttingDown(PrunescopeError):
    code = "shutting-down"
    status = 503
    title = "The server is shutting down"


# What a child reports under these codes has the same meaning, and status, here.
_KNOWN: Mapping[str, type[PrunescopeError]] = {
    kind.code: kind for kind in (Conflict, InvalidFile, InvalidInput, NotFound, StorageFull)
}


def media_type(file_format: str) -> str:
    return "application/json" if file_format == "recipe" else "application/octet-stream"


def check_format(name: str) -> str:
    """The format, when it can be made. Raises InvalidInput."""
    if name in FORMATS:
        return name
    known = ", ".join(FORMATS)
    if name in LATER_FORMATS:
        raise InvalidInput(
            f"Pruned weights can't be written as {name} yet.", f"Available are {known}."
        )
    raise InvalidInput(f"There is no checkpoint format {name!r}.", f"Available are {known}.")


class CheckpointMaker:
    """Makes files with the child process, a few at a time, each only once."""

    def __init__(self, settings: Settings, command: Sequence[str] | None = None) -> None:
        self._folder = settings.data_dir / "cache" / "checkpoints"
        self._environment = settings.child_environment()
        self._command = list(command or (sys.executable, "-m", MODULE))
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(
        self,
        subject: Sequence[str],
        file_format: str,
        facts: Mapping[str, Any],
        closing: asyncio.Event,
    ) -> Path:
        """The file for `subject` (`["--plan", "3"]`), whose content depends on `facts`.

        Raises the child's own error, ExportTimeout or ShuttingDown.
        """
        text = json.dumps([list(subject), file_format, facts], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:24]
        name = "-".join(part.strip("-") for part in subject[:2])
        target = self._folder / f"{name}-{digest}{FORMATS[file_format]}"
        async with self._locks.setdefault(target.name, asyncio.Lock()):
            try:
                if not target.exists():
                    async with self._slots:
                        await self._make(subject, file_format, target, closing)
                    self._forget_old()
            finally:
                self._locks.pop(target.name, None)
        with suppress(OSError):
            os.utime(target)
        return target

    def forget(self, subject_kind: str, subject_id: int) -> None:
        """Delete the files of a plan or an experiment that is deleted."""
        for path in self._folder.glob(f"{subject_kind}-{subject_id}-*"):
            path.unlink(missing_ok=True)

    def _forget_old(self) -> None:
        files = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in files[:-MAX_KEPT]:
            path.unlink(missing_ok=True)

    async def _make(
        self, subject: Sequence[str], file_format: str, target: Path, closing: asyncio.Event
    ) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder.parent) as folder:
            out = Path(folder) / ("checkpoint" + FORMATS[file_format])
            child = await asyncio.create_subprocess_exec(
                *self._command,
                *subject,
                "--format",
                file_format,
                "--out",
                str(out),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
            )
            said = await _wait(child, closing)
            if child.returncode != 0 or not out.is_file():
                raise _error_of(said, child.returncode)
            os.replace(out, target)


async def _wait(child: asyncio.subprocess.Process, closing: asyncio.Event) -> bytes:
    """The tail of what the child wrote to stderr, after its end."""
    assert child.stderr is not None
    ended = asyncio.ensure_future(_drain(child.stderr))
    stopped = asyncio.ensure_future(closing.wait())
    try:
        await asyncio.wait(
            (ended, stopped), timeout=TIME_LIMIT_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if ended.done():
            await child.wait()
            return ended.result()
        if stopped.done():
            raise ShuttingDown("The server is shutting down.", "Try again when it is back.")
        raise ExportTimeout(
            f"Making the checkpoint took more than {TIME_LIMIT_SECONDS:.0f} s.",
            "Try again when the server has less to do.",
        )
    finally:
        stopped.cancel()
        if not ended.done():
            ended.cancel()
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def _drain(stream: asyncio.StreamReader) -> bytes:
    kept = b""
    while chunk := await stream.read(1 << 16):
        kept = (kept + chunk)[-MAX_ERROR_BYTES:]
    return kept


def _error_of(said: bytes, returncode: int | None) -> PrunescopeError:
    """The error that the child reported in the last JSON line on its stderr."""
    for line in reversed(said.decode("utf-8", "replace").splitlines()):
        try:
            report = json.loads(line)
        except ValueError:
            continue
        if isinstance(report, dict) and isinstance(report.get("message"), str):
            kind = _KNOWN.get(str(report.get("code")), ExportFailed)
            return kind(report["message"], str(report.get("hint") or ""))
    return ExportFailed(
        f"The process that makes the checkpoint ended unexpectedly (exit code {returncode}).",
        "The server's log may say more; `prunescope doctor` checks the installation.",
    )
