"""What this machine offers to lock a child in with, and what of it is used."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from app.domain.errors import InvalidInput
from worker.sandbox import bubblewrap
from worker.sandbox.landlock import landlock_abi
from worker.sandbox.seccomp import has_seccomp

VARIABLE = "PRUNESCOPE_ISOLATION"
LEVELS = ("bubblewrap", "landlock", "rlimits")
"""The strongest first."""


@dataclass(frozen=True)
class Isolation:
    """`level`: one of LEVELS; each includes those after it.

    `landlock_abi` is the version used, 0 for none; `sentence` says to people what is in force.
    """

    level: str
    landlock_abi: int
    seccomp: bool
    sentence: str


def missing(level: str) -> str:
    """Why a level can't be had on this machine; empty when it can."""
    if level == "bubblewrap":
        return bubblewrap.trouble()
    if level == "landlock":
        if not landlock_abi():
            return "this kernel has no Landlock, or it is switched off"
        if not has_seccomp():
            return "this kernel has no system call filter for this machine"
    return ""


def available_levels() -> list[str]:
    return [level for level in LEVELS if not missing(level)]


def find_isolation(forced: str | None = None) -> Isolation:
    """The strongest level there is, or the one that is forced (by default by the environment).

    Raises InvalidInput for a forced level that is not to be had.
    """
    wanted = forced or os.environ.get(VARIABLE, "") or "auto"
    if wanted == "auto":
        return describe(available_levels()[0])
    if wanted not in LEVELS:
        raise InvalidInput(
            f"{VARIABLE} can't be {wanted!r}.", f"Set it to auto, {', '.join(LEVELS)}."
        )
    if why := missing(wanted):
        raise InvalidInput(
            f"The isolation {wanted!r} is not available: {why}.",
            f"Install what is missing, or set {VARIABLE} to auto.",
        )
    return describe(wanted)


def examine() -> dict[str, object]:
    """`{ok, text, hint, available}` for people: what is in force, and how it could be stronger."""
    try:
        found = find_isolation()
    except InvalidInput as error:
        return {"ok": False, "text": error.message, "hint": error.hint, "available": False}
    hints: list[str] = []
    if found.level != "bubblewrap":
        if not missing("bubblewrap"):
            hints.append(f"bubblewrap works here: set {VARIABLE} to auto.")
        elif bubblewrap.find_bubblewrap() is None:
            hints.append("Install bubblewrap (apt install bubblewrap).")
        else:
            hints.append(f"{missing('bubblewrap').capitalize()}: allow user namespaces.")
    if not landlock_abi():
        hints.append("A kernel with Landlock (5.13 or newer, lsm=landlock) walls off files.")
    if not found.seccomp:
        hints.append("System calls are filtered on Linux on x86-64 and ARM64 only.")
    text = found.sentence.removesuffix(".")
    # Without bubblewrap the same is denied, by other means; by limits alone much is not.
    ok = found.level != "rlimits"
    return {"ok": ok, "text": text, "hint": " ".join(hints), "available": True}


def describe(level: str) -> Isolation:
    abi = landlock_abi() if level != "rlimits" else 0
    seccomp = has_seccomp()
    parts: list[str] = []
    if level == "bubblewrap":
        parts.append("its own file system, processes and network (bubblewrap)")
    if abi:
        parts.append(f"files by Landlock (version {abi})")
    if seccomp:
        parts.append("system calls by seccomp")
    parts.append("no privileges, limits on memory, output and time")
    sentence = f"{level}: uploads are read and run in a child process with " + "; ".join(parts)
    if not abi:
        sentence += (
            "; the files it is given can be changed by it"
            if level == "bubblewrap"
            else "; files of this user can be read and changed by it"
        )
    if not seccomp and level != "bubblewrap":
        sentence += "; the network can be reached by it"
    return Isolation(level, abi, seccomp, sentence + ".")


if __name__ == "__main__":
    print(json.dumps(examine()))
