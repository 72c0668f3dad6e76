"""What all views share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.store.tables import Job

JSON = dict[str, Any]

NO_PROGRESS: JSON = {"done": 0, "total": 0, "eta": None}


def instant(value: datetime | None) -> str | None:
    """UTC ISO 8601 with a Z. SQLite gives naive values back; they are UTC."""
    if value is None:
        return None
    aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return aware.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def error_view(error: Mapping[str, Any] | None) -> JSON | None:
    if not error:
        return None
    return {
        "code": error.get("code", "error"),
        "message": error.get("message", ""),
        "hint": error.get("hint", ""),
    }


def progress_view(progress: Mapping[str, Any] | None) -> JSON:
    if not progress:
        return dict(NO_PROGRESS)
    counted = {"samples": progress["samples"]} if "samples" in progress else {}
    return {
        "done": progress.get("done", 0),
        "total": progress.get("total", 0),
        "eta": progress.get("eta"),
    } | counted


def job_status(job: Job | None) -> JSON:
    """`status`, `error` and `progress` of the thing that a job works for."""
    if job is None:
        return {"status": "cancelled", "error": None, "progress": dict(NO_PROGRESS)}
    return {
        "status": str(job.state),
        "error": error_view(job.error),
        "progress": progress_view(job.progress),
    }
