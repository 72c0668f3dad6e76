"""Jobs, and whether all is well."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from app.web.answers.common import Error, Priority, Progress, State


class Subject(BaseModel):
    kind: str
    id: int


class Job(BaseModel):
    id: int
    kind: str
    state: State
    attempt: int
    max_attempts: int
    progress: Progress
    error: Error | None
    subject: Subject | None
    analysis_id: int | None
    label: str
    cancel_requested: bool
    paused: bool
    priority: Priority
    created_at: str
    started_at: str | None
    finished_at: str | None


class JobList(BaseModel):
    items: list[Job]
    next_cursor: str | None


class Health(BaseModel):
    status: Literal["ok", "degraded"]
    database: Literal["ok", "failed"]
    workers: int
    isolation: dict[str, int]
    queue: dict[str, int]
