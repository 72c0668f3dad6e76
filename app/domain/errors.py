"""The one tree of errors.

Every error carries a `code` that programs can match on, a `message` that says what is wrong and a
`hint` that says what to do about it. The web server turns them into RFC 9457 problems, the worker
into the error of a job or a model, the command line into one line on stderr.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class PrunescopeError(Exception):
    """Base of all errors that are meant to be read by a person.

    `status` is the HTTP status this error has when it reaches the web.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong"

    def __init__(
        self, message: str, hint: str = "", *, fields: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields = dict(fields or {})

    def as_dict(self) -> dict[str, Any]:
        """`{code, message, hint}`, the form in which errors are stored and shown."""
        return {"code": self.code, "message": self.message, "hint": self.hint}

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InvalidInput(PrunescopeError):
    """A request asks for something that makes no sense or is not available."""

    code = "invalid-input"
    status = 422
    title = "The request can't be carried out"


class InvalidFile(PrunescopeError):
    """An uploaded file is not what it has to be."""

    code = "invalid-file"
    status = 422
    title = "The file can't be used"


class UnsafeFile(InvalidFile):
    """The file could run code when opened; it is refused without opening it."""

    code = "unsafe-file"
    title = "The file is refused because it can run code"


class UnsupportedOperator(InvalidFile):
    """A graph contains an operator that is not on the allow-list."""

    code = "unsupported-operator"
    title = "An operator in the model is not allowed"


class InputMismatch(InvalidInput):
    """The data set's samples don't fit the model's inputs."""

    code = "input-mismatch"
    title = "The data set does not fit the model"


class TooLarge(PrunescopeError):
    """An upload is larger than the limit."""

    code = "too-large"
    status = 413
    title = "The upload is too large"


class StorageFull(PrunescopeError):
    """The disk (or the blob store's quota) is full."""

    code = "storage-full"
    status = 507
    title = "There is no space left"


class Busy(PrunescopeError):
    """The database was locked by somebody else for longer than anybody should wait."""

    code = "busy"
    status = 503
    title = "The database is busy"


class NotFound(PrunescopeError):
    code = "not-found"
    status = 404
    title = "Not found"


class Conflict(PrunescopeError):
    """The thing is in a state, or has dependants, that forbid this."""

    code = "conflict"
    status = 409
    title = "Not possible in the present state"


class Unauthorised(PrunescopeError):
    code = "unauthorised"
    status = 401
    title = "Sign in first"


class Forbidden(PrunescopeError):
    code = "forbidden"
    status = 403
    title = "Refused"


class LeaseLost(PrunescopeError):
    """Another worker holds the job now; whatever this worker still knows is void."""

    code = "lease-lost"
    title = "The job belongs to another worker now"


class Stopped(PrunescopeError):
    """The computation was asked to stop (cancel, or a worker shutting down)."""

    code = "stopped"
    title = "Stopped"


class TrainingDiverged(PrunescopeError):
    """The loss became NaN or infinite while retraining."""

    code = "training-diverged"
    status = 422
    title = "Training diverged"


class ChildFailed(PrunescopeError):
    """The child process that reads uploads and runs networks ended without an answer.

    The code says why: this class means that it crashed, its subclasses the other ways to end.
    `signal` is the number of the signal that ended it, if one did.
    """

    code = "crashed"
    title = "The computation ended by itself"
    signal: int | None = None


class ChildOutOfMemory(ChildFailed):
    code = "out-of-memory"
    title = "There was not enough memory"


class ChildTookTooLong(ChildFailed):
    code = "took-too-long"
    title = "The computation took too long"


class ChildDiskFull(ChildFailed):
    code = "disk-full"
    title = "The computation wrote too much"


class ChildFlooded(ChildFailed):
    code = "flood"
    title = "The computation said too much"


class ChildMalformed(ChildFailed):
    code = "malformed"
    title = "The computation answered with something unreadable"
