"""The queue of jobs: leases, heartbeats, fenced writes, and an end for every job.

A worker claims a job for a lease's time and extends the lease while it works. If it dies, `reap`
gives the job to another. Every write of a job's results goes through `fenced`, which commits only
while the writer still holds the lease: a worker that was asleep for an hour changes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.orm import Session, aliased

from app.domain.errors import Conflict, LeaseLost, NotFound
from app.domain.words import JobKind, JobState
from app.store.clock import now
from app.store.job_states import announce, end, requeue, revive
from app.store.paging import Page, paged
from app.store.store import Store
from app.store.tables import Job

DEFAULT_LEASE_SECONDS = 60.0
MAX_ATTEMPTS = 3
SHORT_JOB_PRIORITY = 2
"""For work that somebody is looking at and that takes seconds: imports, measurements."""
SUBJECTS: Mapping[str, str] = {
    JobKind.IMPORT_MODEL: "model",
    JobKind.IMPORT_DATASET: "dataset",
    JobKind.ANALYSE: "analysis",
    JobKind.MEASURE: "plan",
    JobKind.RETRAIN: "experiment",
}


@dataclass(frozen=True)
class Lease:
    """A job in the hands of one worker; `token` is the proof. `attempt` counts from 1."""

    job_id: int
    kind: str
    payload: dict[str, Any]
    token: str
    attempt: int
    topic: str | None
    max_attempts: int = MAX_ATTEMPTS


def enqueue(
    session: Session,
    kind: str,
    payload: dict[str, Any],
    *,
    subject: tuple[str, int] | None = None,
    topic: str | None = None,
    priority: int = 0,
    max_attempts: int = MAX_ATTEMPTS,
) -> Job:
    """Add a job; higher `priority` first, then first come, first served.

    `subject` is what the job is about, as (noun, id): it shares the subject's fate when that is
    deleted, and an import's end is written to its model or data set. Changes of state are published
    on `topic`.
    """
    job = Job(
        kind=str(kind),
        state=JobState.QUEUED,
        payload=payload,
        subject_kind=subject[0] if subject else None,
        subject_id=subject[1] if subject else None,
        topic=topic,
        priority=priority,
        attempt=0,
        max_attempts=max_attempts,
        cancel_requested=False,
        paused=False,
        progress={"done": 0, "total": 0, "eta": None},
        created_at=now(session),
    )
    session.add(job)
    session.flush()
    announce(session, job)
    return job


def claim(
    store: Store, worker_id: int, *, lease_seconds: float = DEFAULT_LEASE_SECONDS
) -> Lease | None:
    """Take the next queued job, or None when there is none. No two workers ever get the same."""
    with store.read() as session:
        if session.scalar(select(Job.id).where(*_waiting(Job)).limit(1)) is None:
            return None
    token = secrets.token_hex(16)
    with store.write() as session:
        moment = now(session)
        statement = (
            update(Job)
            .where(Job.id == next_queued().scalar_subquery())
            .values(
                state=JobState.RUNNING,
                attempt=Job.attempt + 1,
                lease_token=token,
                lease_expires_at=moment + timedelta(seconds=lease_seconds),
                worker=worker_id,
                started_at=func.coalesce(Job.started_at, moment),
            )
            .returning(Job)
            .execution_options(synchronize_session=False)
        )
        job = session.scalars(statement).one_or_none()
        if job is None:
            return None
        announce(session, job)
        return Lease(
            job_id=job.id,
            kind=job.kind,
            payload=job.payload,
            token=token,
            attempt=job.attempt,
            topic=job.topic,
            max_attempts=job.max_attempts,
        )


def next_queued() -> Select[int]:
    """The id of the job whose turn it is, locked where a database locks rows."""
    job = aliased(Job)
    return (
        select(job.id)
        .where(*_waiting(job))
        .order_by(job.priority.desc(), job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )


def heartbeat(store: Store, lease: Lease, *, lease_seconds: float = DEFAULT_LEASE_SECONDS) -> bool:
    """Extend the lease; True when the job is to be cancelled. Raises LeaseLost."""
    with store.write() as session:
        statement = (
            update(Job)
            .where(*_held_by(lease))
            .values(lease_expires_at=now(session) + timedelta(seconds=lease_seconds))
            .returning(Job.cancel_requested)
        )
        requested = session.scalar(statement)
    if requested is None:
        raise _lost(lease)
    return requested


def cancel_requested(store: Store, lease: Lease) -> bool:
    """As `heartbeat` answers, without extending the lease or waiting for the write lock."""
    with store.read() as session:
        requested = session.scalar(select(Job.cancel_requested).where(*_held_by(lease)))
    if requested is None:
        raise _lost(lease)
    return requested


def outranked(store: Store, lease: Lease, *, waiting_seconds: float) -> bool:
    """Whether a job of higher priority has been in the queue for longer than `waiting_seconds`.

    A long job that can go on where it stopped should then be handed back with `release`.
    """
    with store.read() as session:
        since = now(session) - timedelta(seconds=waiting_seconds)
        mine = select(Job.priority).where(Job.id == lease.job_id).scalar_subquery()
        waiting = select(Job.id).where(*_waiting(Job), Job.priority > mine, Job.created_at < since)
        return session.scalar(waiting.limit(1)) is not None


def handing_back(store: Store, lease: Lease) -> bool:
    """Whether the job should be handed back with `release` now. Raises LeaseLost.

    So it should when somebody paused it, or asked for more than it was given: its payload changed.
    """
    with store.read() as session:
        job = session.execute(select(Job.paused, Job.payload).where(*_held_by(lease))).first()
    if job is None:
        raise _lost(lease)
    return job.paused or job.payload != lease.payload


@contextmanager
def fenced(store: Store, lease: Lease) -> Generator[Session]:
    """A write transaction that exists only while the lease is held. Raises LeaseLost on entry.

    Nobody can take the job away between the check and the commit: SQLite has one writer, and on
    PostgreSQL the job's row stays locked.
    """
    with store.write() as session:
        _held(session, lease)
        yield session


def progress(
    session: Session,
    lease: Lease,
    done: float,
    total: float,
    eta: float | None,
    samples: int | None = None,
) -> None:
    """Say how far the job is, in any unit, and how many seconds are left. Raises LeaseLost.

    `samples`: how many evaluations of a sample that took, where they are counted.
    """
    job = _held(session, lease)
    counted = {} if samples is None else {"samples": samples}
    job.progress = {"done": done, "total": total, "eta": eta} | counted
    announce(session, job)


def finish(session: Session, lease: Lease) -> None:
    """The job is done; it is queued again if more was asked of it meanwhile. Raises LeaseLost."""
    job = _held(session, lease)
    if job.payload != lease.payload:
        job.attempt = 0
        requeue(session, job)
    else:
        end(session, job, JobState.DONE)


def fail(session: Session, lease: Lease, error: dict[str, Any]) -> None:
    """The job can't be done, and trying again by itself would change nothing. Raises LeaseLost.

    `error` is `{code, message, hint}`.
    """
    end(session, _held(session, lease), JobState.FAILED, error)


def retry_or_fail(
    session: Session, lease: Lease, error: dict[str, Any], *, max_attempts: int
) -> bool:
    """What went wrong may go well the next time: queue the job again, whether that was done.

    It fails with `error` when this was attempt number `max_attempts` or its own last one, and is
    cancelled when somebody asked for that meanwhile. Raises LeaseLost.
    """
    job = _held(session, lease)
    if job.attempt >= min(max_attempts, job.max_attempts) and not job.cancel_requested:
        end(session, job, JobState.FAILED, error)
        return False
    requeue(session, job)
    return job.state == JobState.QUEUED


def mark_cancelled(session: Session, lease: Lease) -> None:
    """The worker has stopped, as it was asked to. Raises LeaseLost."""
    end(session, _held(session, lease), JobState.CANCELLED)


def release(session: Session, lease: Lease) -> None:
    """Hand the job back unfinished, without spending an attempt. Raises LeaseLost."""
    job = _held(session, lease)
    job.attempt -= 1
    requeue(session, job)


def request_cancel(session: Session, job_id: int) -> Job:
    """Cancel a queued job at once; ask the worker of a running one to stop.

    Raises NotFound, and Conflict when the job has ended already.
    """
    job = locked(session, job_id)
    if job.state.finished:
        raise Conflict(
            f"Job {job_id} has ended already: it is {job.state.value}.",
            "There is nothing left to cancel.",
        )
    if job.state == JobState.QUEUED:
        end(session, job, JobState.CANCELLED)
    else:
        job.cancel_requested = True
        session.flush()
    return job


def retry(session: Session, job_id: int) -> Job:
    """Queue a failed or cancelled job again, with all its attempts.

    Raises NotFound, and Conflict for a job in any other state.
    """
    job = locked(session, job_id)
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        raise Conflict(
            f"Job {job_id} is {job.state.value}.",
            "Only a failed or cancelled job can be retried.",
        )
    revive(session, job)
    return job


def reap(store: Store, *, worker_id: int | None = None) -> int:
    """Take jobs away from workers whose lease ran out; returns how many.

    They are queued again, or fail with code `worker-died` when their attempts are used up. With
    `worker_id`, the jobs of that worker at once: for whoever has seen it die. Call it every few
    seconds; with nothing to do it only reads.
    """

    def dead(session: Session) -> ColumnElement[bool]:
        if worker_id is not None:
            return (Job.state == JobState.RUNNING) & (Job.worker == worker_id)
        return (Job.state == JobState.RUNNING) & (Job.lease_expires_at < now(session))

    with store.read() as session:
        job_ids = session.scalars(select(Job.id).where(dead(session))).all()
    reaped = 0
    for job_id in job_ids:
        with store.write() as session:
            statement = select(Job).where(Job.id == job_id, dead(session))
            job = session.scalar(statement.with_for_update(skip_locked=True))
            if job is None:
                continue
            reaped += 1
            if job.cancel_requested:
                end(session, job, JobState.CANCELLED)
            elif job.attempt >= job.max_attempts:
                end(session, job, JobState.FAILED, worker_died(job.attempt))
            else:
                requeue(session, job)
    return reaped


def worker_died(attempts: int) -> dict[str, Any]:
    times = "once" if attempts == 1 else f"{attempts} times in a row"
    return {
        "code": "worker-died",
        "message": f"The worker process died {times} while working on this job.",
        "hint": "Most often the machine ran out of memory. Free some, or use a smaller model or"
        " data set, then retry the job.",
    }


def get(session: Session, job_id: int) -> Job:
    """Raises NotFound."""
    job = session.get(Job, job_id)
    if job is None:
        raise _missing(job_id)
    return job


def get_many(session: Session, job_ids: Sequence[int | None]) -> dict[int, Job]:
    """The jobs with these ids, by id; None and unknown ones are left out."""
    wanted = {job_id for job_id in job_ids if job_id is not None}
    return {job.id: job for job in session.scalars(select(Job).where(Job.id.in_(wanted)))}


def listing(
    session: Session,
    *,
    limit: int = 50,
    cursor: str | None = None,
    state: JobState | None = None,
) -> Page[Job]:
    """Jobs, newest first."""
    statement = select(Job)
    if state is not None:
        statement = statement.where(Job.state == state)
    return paged(session, statement, Job.id, limit, cursor)


def counts(session: Session) -> dict[JobState, int]:
    """How many jobs are in each state, those with none included."""
    rows = session.execute(select(Job.state, func.count()).group_by(Job.state))
    found = dict(iter(rows))
    return {state: found.get(state, 0) for state in JobState}


def _waiting(job: type[Job]) -> tuple[ColumnElement[bool], ...]:
    """What makes a job one that may be taken."""
    return job.state == JobState.QUEUED, job.paused.is_(False)


def _held_by(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (
        Job.id == lease.job_id,
        Job.lease_token == lease.token,
        Job.state == JobState.RUNNING,
    )


def _held(session: Session, lease: Lease) -> Job:
    session.flush()
    statement = select(Job).where(*_held_by(lease)).with_for_update()
    job = session.scalar(statement.execution_options(populate_existing=True))
    if job is None:
        raise _lost(lease)
    return job


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(
        f"Job {lease.job_id} is not in this worker's hands any more.",
        "Drop what was computed for it: it was given to another worker, ended or deleted.",
    )


def locked(session: Session, job_id: int) -> Job:
    """The job as it is now, for this transaction alone. Raises NotFound."""
    session.flush()
    statement = select(Job).where(Job.id == job_id).with_for_update()
    job = session.scalar(statement.execution_options(populate_existing=True))
    if job is None:
        raise _missing(job_id)
    return job


def _missing(job_id: int) -> NotFound:
    return NotFound(f"There is no job {job_id}.", "It may have been deleted with its subject.")
