"""The child in which hostile files are opened: a fresh fork for each, watched and measured.

`python -m tests.attacks.reader FD` loads torch and the readers once, then forks a child for every
line on stdin. The child has a limit on its time and its memory, an audit hook that notes whatever
no reader has any business with (a process, a socket, a write outside its folder, a class looked up
by a pickle), and measures its own peak. What it found comes back as one line of JSON on descriptor
FD.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = int(sys.argv[1]) if __name__ == "__main__" else -1
_NEVER = (
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn", "os.kill"),
    *("subprocess.Popen", "socket.__new__", "socket.connect", "socket.bind", "socket.getaddrinfo"),
    *("ctypes.dlopen", "pickle.find_class", "os.putenv", "webbrowser.open", "os.symlink"),
    *("urllib.Request", "http.client.connect", "ftplib.connect", "smtplib.connect", "shutil.move"),
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def read_model(path: str, folder: str, **options: Any) -> dict[str, Any]:
    """The import of a model, as the worker does it."""
    from worker.engine.formats.models import open_model

    opened = open_model(Path(path), folder=Path(folder), **options)
    model = opened.model
    inputs = [list(spec.shape) for spec in model.inputs] if model else []
    return {"format": opened.format, "inputs": inputs, "details": opened.details}


def read_dataset(
    path: str, folder: str, task: str = "classification", options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The import of a data set, and its first and last batches."""
    from worker.engine.formats.datasets import inspect_dataset

    info = inspect_dataset(Path(path), task, options or {}, folder=Path(folder))
    return {"splits": info.splits, "shape": info.input_shape, "notes": info.notes}


def run_program(source: str, **arguments: Any) -> Any:
    """What somebody else's software does with the same file: the proof that it is dangerous."""
    scope: dict[str, Any] = {"__name__": "program", **arguments}
    exec(compile(source, "program", "exec"), scope)  # noqa: S102
    return scope.get("result")


def fuzz(**arguments: Any) -> Any:
    from tests.attacks.fuzz import fuzz_here

    return fuzz_here(**arguments)


CALLS: dict[str, Callable[..., Any]] = {
    "model": read_model,
    "dataset": read_dataset,
    "program": run_program,
    "fuzz": fuzz,
}


def _status(field: str) -> int:
    """A size of this process in bytes: VmRSS now, VmHWM its peak, VmData what is its own."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    return 0


def _watch(folder: str, events: list[str]) -> None:
    """Note what no reader does. Only the first few: a payload may do it in a loop."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if len(events) > 20:
            return
        if event in _NEVER:
            events.append(f"{event} {str(args)[:200]}")
        elif event == "open" and isinstance(args[2], int) and args[2] & _WRITES:
            place = os.path.realpath(os.fsdecode(args[0])) if not isinstance(args[0], int) else ""
            if place and place != "/dev/null" and not place.startswith(folder + os.sep):
                events.append(f"writes {place[:200]}")

    sys.addaudithook(hook)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from app.domain.errors import PrunescopeError

    events: list[str] = []
    arguments = request["arguments"]
    limit = request["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_DATA, (_status("VmData") + limit,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    if request["watched"]:
        _watch(os.path.realpath(arguments["folder"]), events)
    before, start = _status("VmRSS"), time.process_time()
    found: dict[str, Any] = {"value": None, "error": None, "raised": None}
    try:
        found["value"] = CALLS[request["call"]](**arguments)
    except PrunescopeError as error:
        found["error"] = {**error.as_dict(), "kind": type(error).__name__}
    except BaseException as error:
        found["raised"] = f"{type(error).__name__}: {str(error)[:500]}\n" + "".join(
            traceback.format_tb(error.__traceback__)[-6:]
        )
    return found | {
        "seconds": time.process_time() - start,
        "peak_bytes": _status("VmHWM") - before,
        "events": events,
    }


def _child(request: dict[str, Any]) -> None:
    """Never returns. A payload that swallows the alarm doesn't exist: it has no Python handler."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(request["seconds"])
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(quiet, descriptor)
    if request["sys_path"]:
        sys.path.insert(0, request["sys_path"])
    try:
        line = json.dumps(_answer(request), default=str)
        with os.fdopen(RESULTS, "w") as results:
            results.write(line + "\n")
        os._exit(0)
    except BaseException:
        os._exit(99)


def _serve() -> None:
    import torch

    torch.set_num_threads(1)
    import PIL.Image  # noqa: F401
    import safetensors  # noqa: F401
    import torch._subclasses.fake_tensor
    import torch.export.pt2_archive._package

    import tests.attacks.fuzz  # noqa: F401
    import worker.engine.formats.datasets
    import worker.engine.formats.models  # noqa: F401

    gc.collect()
    gc.freeze()
    os.write(RESULTS, b'{"ready": true}\n')
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _child(request)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code:
            os.write(RESULTS, json.dumps({"died": code}).encode() + b"\n")


if __name__ == "__main__":
    _serve()
