"""The life of a child: lock everything, run one recipe, say what came of it."""

from __future__ import annotations

import errno
import gc
import importlib
import io
import json
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from app.domain.errors import PrunescopeError
from worker.inside.job import InsideJob
from worker.sandbox import wire
from worker.sandbox.harden import harden

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXT = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|os error (28|122|27)\b"
    r"|inline_container.*unexpected pos"
)
_MEMORY_TEXT = re.compile(r"can't allocate memory|Cannot allocate memory|std::bad_alloc")
_RECIPE = re.compile(r"[a-z][a-z0-9_]*\Z")
MAX_DETAIL = 300


def describe(error: BaseException) -> dict[str, Any]:
    """The last message of a recipe that raised."""
    if isinstance(error, PrunescopeError):
        return {
            "error": {
                "class": type(error).__name__,
                "message": error.message,
                "hint": error.hint,
                "fields": error.fields,
            }
        }
    if isinstance(error, MemoryError) or _MEMORY_TEXT.search(str(error)):
        return {"failed": {"reason": "memory"}}
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return {"failed": {"reason": "memory"}}
    if isinstance(error, OSError) and error.errno is not None:
        full = error.errno in _FULL
    else:
        full = _FULL_TEXT.search(str(error)) is not None
    if full:
        return {"failed": {"reason": "disk"}}
    lines = str(error).strip().splitlines()
    detail = lines[0][:MAX_DETAIL] if lines else ""
    return {"failed": {"reason": "unexpected", "type": type(error).__name__, "detail": detail}}


def perform(package: str, recipe: str, job: InsideJob) -> dict[str, Any]:
    """Run a recipe of the package. Raises whatever it raises."""
    if not _RECIPE.match(recipe):
        raise ValueError(f"{recipe!r} is not the name of a recipe")
    value = importlib.import_module(f"{package}.{recipe}").run(job)
    if not isinstance(value, dict):
        raise TypeError(f"the recipe {recipe} returned {type(value).__name__}, not a dict")
    return value


def descriptor_path(descriptor: int) -> Path:
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    return Path(f"{folder}/{descriptor}")


def live(request: Mapping[str, Any], descriptors: list[int]) -> NoReturn:
    """What a forked child does instead of returning.

    `descriptors`: of the arguments, for messages, for output, and of the files in the order of
    `request["files"]`.
    """
    code = 1
    try:
        _live(request, descriptors)
        code = 0
    except BaseException:
        with open(2, "w", closefd=False) as stderr:
            traceback.print_exc(file=stderr)
    finally:
        os._exit(code)


def _live(request: Mapping[str, Any], descriptors: list[int]) -> None:
    arguments, messages, output, *files = descriptors
    _settle(output, {messages, arguments, *files})
    folder = Path(request["folder"])
    os.chdir(folder)
    os.environ["TMPDIR"] = os.environ["HOME"] = str(folder)
    tempfile.tempdir = None
    with os.fdopen(arguments, "rb") as file:
        said = json.load(file)
    _use_threads(request["threads"])
    harden(request, files)
    gc.enable()

    def tell(kind: str, body: dict[str, Any]) -> None:
        wire.write_all(messages, wire.encode({"tell": kind, "body": body}))

    names = request["files"]
    job = InsideJob(
        said,
        {name: descriptor_path(at) for name, at in zip(names, files, strict=True)},
        folder,
        tell,
    )
    try:
        answer = wire.encode({"result": perform(request["recipes"], request["recipe"], job)})
    except BaseException as error:
        if not isinstance(error, PrunescopeError):
            traceback.print_exc()
        answer = wire.encode(describe(error))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    wire.write_all(messages, answer)


def _settle(output: int, kept: set[int]) -> None:
    """A session of its own, the usual three descriptors, the ones it was given, no others."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    before = 3
    for descriptor in sorted(kept):
        os.closerange(before, descriptor)
        before = descriptor + 1
    os.closerange(before, max(before, os.sysconf("SC_OPEN_MAX")))
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            io.FileIO(number, "w", closefd=False),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        for number in (1, 2)
    )


def _use_threads(threads: int | None) -> None:
    torch = sys.modules.get("torch")
    if threads and torch is not None:
        torch.set_num_threads(threads)
