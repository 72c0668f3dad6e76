"""How a job goes from one state to another, with its subject and with word to whoever listens."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from app.domain.words import JobKind, JobState, Status
from app.store.clock import now
from app.store.events import publish
from app.store.tables import Dataset, Job, Model


def revive(session: Session, job: Job) -> None:
    """Queue a job that has ended, as if it had never been tried."""
    job.attempt = 0
    job.error = None
    job.finished_at = None
    job.started_at = None
    job.cancel_requested = False
    job.paused = False
    job.progress = {**job.progress, "eta": None}
    requeue(session, job)


def requeue(session: Session, job: Job) -> None:
    """Let it wait for a worker again, or end it where somebody asked for that meanwhile."""
    if job.cancel_requested:
        end(session, job, JobState.CANCELLED)
        return
    job.state = JobState.QUEUED
    _drop_lease(job)
    _settle_subject(session, job)
    announce(session, job)


def end(session: Session, job: Job, state: JobState, error: dict[str, Any] | None = None) -> None:
    """Put it into a final state. `error` is `{code, message, hint}`."""
    job.state = state
    job.error = error
    job.paused = False
    job.finished_at = now(session)
    _drop_lease(job)
    _settle_subject(session, job)
    announce(session, job)


def _drop_lease(job: Job) -> None:
    job.lease_token = None
    job.lease_expires_at = None
    job.worker = None


def _settle_subject(session: Session, job: Job) -> None:
    """A model or data set is exactly as importing, or as failed, as its import."""
    kinds: dict[str, type[Model] | type[Dataset]] = {
        JobKind.IMPORT_MODEL: Model,
        JobKind.IMPORT_DATASET: Dataset,
    }
    table = kinds.get(job.kind)
    if table is None or job.state == JobState.DONE:
        return
    error = job.error
    if job.state == JobState.CANCELLED:
        error = {
            "code": "cancelled",
            "message": "The import was cancelled.",
            "hint": "Retry its job, or upload the file again.",
        }
    session.execute(
        update(table)
        .where(table.id == job.subject_id)
        .values(
            status=Status.FAILED if job.state.finished else Status.IMPORTING,
            error=error,
            updated_at=now(session),
        )
    )


def announce(session: Session, job: Job) -> None:
    """Flush the job and tell its topic how it stands."""
    session.flush()
    how = {"error": job.error, "progress": job.progress, "paused": job.paused}
    if job.kind == JobKind.MEASURE:
        about = {"job_id": job.id, "kind": job.kind, "plan_id": job.subject_id}
        publish(session, job.topic, "job", {**about, "state": job.state.value, **how})
    else:
        publish(session, job.topic, "status", {"status": job.state.value, **how})
