"""What became of a job, in words: any exception as `{code, message, hint}`."""

from __future__ import annotations

import errno
import logging
import re
import signal
import traceback
from typing import Any

from sqlalchemy.exc import DBAPIError

from app.domain.errors import ChildFailed, PrunescopeError, StorageFull

log = logging.getLogger("prunescope.worker")

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Libraries that write files themselves (safetensors, torch) keep the number in their text only.
_FULL_TEXT = re.compile(
    r"No space left on device|Disk quota exceeded|os error (28|122)\b"
    r"|inline_container.*unexpected pos"
)
_PATH = re.compile(r"(?<![\w<])/(?:[^\s'\":,;()]+/)+")
MAX_DETAIL = 300
ATTEMPTS_AFTER_KILL = 3
ATTEMPTS_AFTER_CRASH = 2
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)


def describe(error: BaseException) -> dict[str, Any]:
    """A traceback only ever goes to the log, and no folder of this machine into the words."""
    if isinstance(error, PrunescopeError):
        return error.as_dict()
    if is_storage_full(error):
        return StorageFull(
            "The disk is full.", "Make room in the data directory, then retry the job."
        ).as_dict()
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return {
            "code": "out-of-memory",
            "message": "There is not enough memory for this model and batch.",
            "hint": "Free some memory on the machine, then retry the job.",
        }
    log.error("unexpected error\n%s", "".join(traceback.format_exception(error)))
    said = detail(error)
    return {
        "code": "internal",
        "message": f"Something unexpected went wrong ({type(error).__name__}"
        + (f": {said})." if said else ")."),
        "hint": "The worker's log has the details. Retrying does no harm.",
    }


def attempts_for(error: BaseException) -> int | None:
    """How often a job may be tried in all before this error ends it; None: it would come again.

    A kill is the machine's doing (memory ran out, an operator's hand), and may not come again. A
    crash is the file's doing more often than not; once more tells.
    """
    number = error.signal if isinstance(error, ChildFailed) else None
    if number is None:
        return None
    if number in _CRASHES:
        return ATTEMPTS_AFTER_CRASH
    return None if number in (signal.SIGSYS, signal.SIGXFSZ) else ATTEMPTS_AFTER_KILL


def is_storage_full(error: BaseException) -> bool:
    """Whether the disk was full, whichever library met it."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return _FULL_TEXT.search(str(error)) is not None


def detail(error: BaseException) -> str:
    """The first line of what an unexpected error says, without SQL, values and folders."""
    said = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    lines = said.strip().splitlines()
    return _PATH.sub("", lines[0])[:MAX_DETAIL] if lines else ""
