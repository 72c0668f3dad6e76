"""Namespaces by bubblewrap: a machine of its own with next to nothing on it.

The child sees its own processes only, no network, and of the files the system's libraries, Python
and the arena. `bwrap` needs no rights beyond user namespaces.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from worker.sandbox import kernel
from worker.sandbox.reach import SYSTEM_FACTS, readable

PROBE_SECONDS = 20.0
_UNIT_BYTES = 1 << 20


def command(program: str, arena: Path | None, environment: Mapping[str, str]) -> list[str]:
    """The words before the command to run; `arena` is writable, at its own path."""
    words = [program, "--unshare-all", "--die-with-parent", "--new-session"]
    words += ["--cap-drop", "ALL", "--hostname", "inside", "--clearenv"]
    for name, value in environment.items():
        words += ["--setenv", name, value]
    # Nothing is kept in memory by writing files: what a child writes is on the disk, and counted.
    words += ["--size", str(_UNIT_BYTES), "--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev"]
    # After the above: Python, or the data, may be installed below one of them.
    for place in readable():
        words += ["--ro-bind", str(place), str(place)]
    for place in SYSTEM_FACTS:
        words += ["--ro-bind-try", str(place), str(place)]
    if arena is not None:
        words += ["--bind", str(arena), str(arena)]
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/", "--"]


@cache
def find_bubblewrap() -> str | None:
    """The program, wherever it is."""
    return shutil.which("bwrap") if kernel.LINUX else None


@cache
def trouble() -> str:
    """Why bubblewrap can't be used here; empty when it can. Tried once, with a real child."""
    program = find_bubblewrap()
    if program is None:
        return "bubblewrap is not installed"
    words = command(program, None, {})
    try:
        tried = subprocess.run(
            [*words, sys.executable, "-I", "-S", "-c", "import os; os._exit(42)"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"bubblewrap can't be run ({type(error).__name__})"
    if tried.returncode == 42:
        return ""
    said = tried.stderr.decode("utf-8", "replace").strip().splitlines()
    return "bubblewrap does not work here" + (f" ({said[-1][:200]})" if said else "")
