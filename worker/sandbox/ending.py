"""How a child ended, in words: exit status, limits and what it said last, as an error to raise."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from typing import Any

from app.domain import errors
from app.domain.errors import (
    ChildDiskFull,
    ChildFailed,
    ChildFlooded,
    ChildMalformed,
    ChildOutOfMemory,
    ChildTookTooLong,
    PrunescopeError,
    StorageFull,
)

MAX_WORDS = 2000
MAX_FIELDS = 50
MAX_DETAIL = 300
LEAST_FREE_BYTES = 16 << 20
_RETRY = "Retry the job; if it happens again, the model or the data set is the cause."

# What a recipe may say went wrong. Not Stopped or LeaseLost: a child that says so would be handed
# back and run for ever.
CROSSING: Mapping[str, type[PrunescopeError]] = {
    kind.__name__: kind
    for kind in (
        errors.InvalidInput,
        errors.InvalidFile,
        errors.UnsafeFile,
        errors.UnsupportedOperator,
        errors.InputMismatch,
        errors.TooLarge,
        errors.StorageFull,
        errors.NotFound,
        errors.Conflict,
        errors.TrainingDiverged,
    )
}
_MEMORY_WORDS = re.compile(
    rb"std::bad_alloc|can't allocate memory|Cannot allocate memory|MemoryError"
)
_PATH = re.compile(r"(?<![\w<])/(?:[^\s'\":,;()]+/)+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def plain(text: Any, limit: int = MAX_WORDS) -> str:
    """A child's words, of limited length and without control characters."""
    said = str(text)[:limit].encode("utf-8", "replace").decode("utf-8")
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", said)


def for_log(output: bytes) -> str:
    """The end of a child's output, safe to write to a terminal or a log file."""
    text = output.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return plain(text, len(text)).strip()


def raised_inside(said: Mapping[str, Any]) -> PrunescopeError:
    """The error that a recipe raised, made again here."""
    kind = CROSSING.get(str(said.get("class", "")))
    if kind is None:
        return ChildMalformed("The computation failed in a way that has no name.", _RETRY)
    fields = said.get("fields")
    words = dict(list(fields.items())[:MAX_FIELDS]) if isinstance(fields, dict) else {}
    return kind(
        plain(said.get("message", "")),
        plain(said.get("hint", "")),
        fields={plain(key, 100): plain(value) for key, value in words.items()},
    )


def failed_inside(said: Mapping[str, Any], *, disk_bytes: int | None, folder: str) -> Exception:
    """What became of an exception in the child that is none of ours."""
    reason = said.get("reason")
    if reason == "memory":
        return out_of_memory()
    if reason == "disk":
        return disk_full(disk_bytes, folder)
    kind = plain(said.get("type", ""), 80)
    detail = _PATH.sub("", plain(said.get("detail", ""), MAX_DETAIL))
    return ChildFailed(
        f"Something unexpected went wrong ({kind}" + (f": {detail})." if detail else ")."),
        "The worker's log has the details. Retrying does no harm.",
    )


def ended(status: int, tail: bytes, *, disk_bytes: int | None, folder: str) -> ChildFailed:
    """From a wait status, for a child that ended without an answer."""
    if os.WIFSIGNALED(status):
        failed = _killed(os.WTERMSIG(status), tail, disk_bytes)
        failed.signal = os.WTERMSIG(status)
        return failed
    code = os.waitstatus_to_exitcode(status)
    if _MEMORY_WORDS.search(tail):
        return out_of_memory()
    return ChildFailed(
        f"The computation ended by itself (exit code {code}) without an answer.", _RETRY
    )


def _killed(number: int, tail: bytes, disk_bytes: int | None) -> ChildFailed:
    if number == signal.SIGKILL:
        return ChildOutOfMemory(
            "The computation was ended by the system, most likely because memory ran out.",
            "Free some memory on the machine, or use a smaller model or data set; then retry.",
        )
    if number == signal.SIGXFSZ:
        return wrote_too_much(disk_bytes)
    if number == signal.SIGSYS:
        return ChildFailed(
            "The computation tried something that is not allowed: a system call that no network"
            " needs, such as attaching to other processes or mounting.",
            "The model or the data set may be hostile. Don't use it unless you trust its source.",
        )
    if _MEMORY_WORDS.search(tail):
        return out_of_memory()
    words = {
        signal.SIGSEGV: "it reached for memory that isn't its own (segmentation fault)",
        signal.SIGBUS: "it read a file beyond its end (bus error)",
        signal.SIGABRT: "it gave up (abort)",
        signal.SIGFPE: "it divided by zero (floating point exception)",
        signal.SIGILL: "this processor doesn't know an instruction in it (illegal instruction)",
    }
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    why = words.get(signal.Signals(number), name) if number in words else name
    return ChildFailed(f"The computation crashed: {why}.", _RETRY)


def out_of_memory() -> ChildOutOfMemory:
    return ChildOutOfMemory(
        "There is not enough memory for this model and batch.",
        "Free some memory on the machine, or use a smaller model or data set; then retry the job.",
    )


def took_too_long(seconds: float) -> ChildTookTooLong:
    return ChildTookTooLong(
        f"The computation took more than {seconds:.0f} s, so it was given up."
        if seconds >= 1
        else f"The computation took more than {seconds:.1f} s, so it was given up.",
        "Use a smaller model or data set. For a network's export, two samples as example input"
        " are enough.",
    )


def wrote_too_much(disk_bytes: int | None) -> ChildDiskFull:
    limit = f" more than {disk_bytes / (1 << 20):.0f} MiB" if disk_bytes else " too much"
    return ChildDiskFull(
        f"The computation wrote{limit} to the disk and was ended.",
        "Use a smaller model or data set.",
    )


def disk_full(disk_bytes: int | None, folder: str) -> PrunescopeError:
    """Told apart by the disk itself: a full one is the operator's matter, a cap the file's."""
    try:
        there = os.statvfs(folder)
        full = there.f_bavail * there.f_frsize < LEAST_FREE_BYTES
    except OSError:
        full = disk_bytes is None
    if full or disk_bytes is None:
        return StorageFull(
            "The disk is full.", "Make room in the data directory, then retry the job."
        )
    return wrote_too_much(disk_bytes)


def flooded(output_bytes: int) -> ChildFlooded:
    return ChildFlooded(
        f"The computation printed more than {output_bytes / (1 << 20):.0f} MiB and was ended.",
        "A model or a data set that does this may be hostile.",
    )


def unreadable(why: str) -> ChildMalformed:
    return ChildMalformed(f"The computation's answer can't be used: {why}.", _RETRY)
