"""Jobs and workers."""

from __future__ import annotations

from app.store.steering import priority_word
from app.store.tables import Job, Worker
from app.web.views.common import JSON, error_view, instant, progress_view


def job_view(row: Job, label: str, analysis_id: int | None = None) -> JSON:
    """GET /api/jobs/{id}. `label` names for people what the job works on.

    `analysis_id`: where a plan, the subject of a measure job, is shown.
    """
    subject = None
    if row.subject_kind is not None:
        subject = {"kind": row.subject_kind, "id": row.subject_id}
    return {
        "id": row.id,
        "kind": str(row.kind),
        "state": str(row.state),
        "attempt": row.attempt,
        "max_attempts": row.max_attempts,
        "progress": progress_view(row.progress),
        "error": error_view(row.error),
        "subject": subject,
        "analysis_id": analysis_id,
        "label": label,
        "cancel_requested": bool(row.cancel_requested),
        "paused": bool(row.paused),
        "priority": priority_word(row).value,
        "created_at": instant(row.created_at),
        "started_at": instant(row.started_at),
        "finished_at": instant(row.finished_at),
    }


def worker_view(row: Worker) -> JSON:
    return {
        "id": row.id,
        "pid": row.pid,
        "host": row.host,
        "isolation": row.isolation,
        "started_at": instant(row.started_at),
        "heartbeat_at": instant(row.heartbeat_at),
    }
