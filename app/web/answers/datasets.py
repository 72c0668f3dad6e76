"""Data sets."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from app.web.answers.common import Error, Status


class Dataset(BaseModel):
    id: int
    name: str
    format: str
    sha256: str
    bytes: int
    status: Status
    error: Error | None
    task: str
    splits: dict[str, int]
    input_shape: list[int] | None
    classes: int | None
    options: dict[str, Any]
    details: dict[str, Any]
    job_id: int | None
    created_at: str


class DatasetList(BaseModel):
    items: list[Dataset]
    next_cursor: str | None
