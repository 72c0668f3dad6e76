"""Words and shapes that many answers have."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

Status = Literal["importing", "ready", "failed"]
Priority = Literal["low", "normal", "high"]
State = Literal["queued", "running", "done", "failed", "cancelled"]


class Error(BaseModel):
    code: str
    message: str
    hint: str


class Problem(BaseModel):
    """RFC 9457. `detail` says what is wrong and what to do about it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str | None = None
    errors: list[dict[str, str]] | None = None


class Progress(BaseModel):
    """`samples`: evaluations of a sample so far, where they are counted."""

    done: float
    total: float
    eta: float | None
    samples: int | None = None
