"""What people do to jobs beside cancelling them: let them wait, prefer them, ask for more."""

from __future__ import annotations

from sqlalchemy.orm import Session

from app.domain.errors import Conflict
from app.domain.words import JobKind, Priority
from app.store import queue
from app.store.job_states import announce, revive
from app.store.tables import Job

_NUMBERS = {Priority.LOW: -1, Priority.NORMAL: 0, Priority.HIGH: 1}
_SHORT = frozenset({JobKind.IMPORT_MODEL, JobKind.IMPORT_DATASET, JobKind.MEASURE})
ROUND = "round"
"""The entry of a payload that counts how often more was asked for."""


def priority_number(kind: str, priority: Priority) -> int:
    """What the word means for a job of this kind."""
    return _NUMBERS[priority] + (queue.SHORT_JOB_PRIORITY if kind in _SHORT else 0)


def priority_word(job: Job) -> Priority:
    """The word for a job's priority."""
    number = job.priority - (queue.SHORT_JOB_PRIORITY if job.kind in _SHORT else 0)
    return Priority.NORMAL if number == 0 else Priority.HIGH if number > 0 else Priority.LOW


def pause(session: Session, job_id: int) -> Job:
    """Let a job wait: a queued one is not taken, the worker of a running one hands it back.

    What it has measured stays. Pausing twice changes nothing. Raises NotFound, and Conflict when
    the job has ended.
    """
    job = _unfinished(session, job_id, "pause")
    if not job.paused:
        job.paused = True
        announce(session, job)
    return job


def resume(session: Session, job_id: int) -> Job:
    """Let a paused job go on; one that isn't paused already does. Raises as `pause`."""
    job = _unfinished(session, job_id, "resume")
    if job.paused:
        job.paused = False
        announce(session, job)
    return job


def set_priority(session: Session, job_id: int, priority: Priority) -> Job:
    """Give a job another turn. Raises as `pause`."""
    job = _unfinished(session, job_id, "put off or prefer")
    job.priority = priority_number(job.kind, priority)
    announce(session, job)
    return job


def ask_for_more(session: Session, job_id: int) -> Job:
    """There is more to do for this job now than when it was queued. Raises NotFound.

    One that has ended is queued again, with all its attempts. A running one is handed back by its
    worker, or queued again at its end, whichever comes first.
    """
    job = queue.locked(session, job_id)
    job.payload = {**job.payload, ROUND: job.payload.get(ROUND, 0) + 1}
    if job.state.finished:
        revive(session, job)
    else:
        announce(session, job)
    return job


def _unfinished(session: Session, job_id: int, what: str) -> Job:
    job = queue.locked(session, job_id)
    if job.state.finished:
        raise Conflict(
            f"Job {job_id} has ended already: it is {job.state.value}.",
            f"There is nothing left to {what}.",
        )
    return job
