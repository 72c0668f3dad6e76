"""Jobs with the names of what they work on."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.domain.words import JobState
from app.store import queue
from app.store.tables import Analysis, Dataset, Experiment, Job, Model, Plan, Worker
from app.web.paging import Paging, fetch
from app.web.views.common import JSON
from app.web.views.jobs import job_view, worker_view


def read_job(session: Session, job_id: int) -> JSON:
    job = queue.get(session, job_id)
    return view(session, job)


def view(session: Session, job: Job) -> JSON:
    return job_view(job, labels(session, [job])[job.id], analyses_of(session, [job]).get(job.id))


def list_jobs(
    session: Session, asked: Paging, state: JobState | None = None
) -> tuple[list[JSON], str | None]:
    statement = select(Job)
    if state is not None:
        statement = statement.where(Job.state == state)
    rows, cursor = fetch(session, statement, Job.id, asked)
    jobs = [row[0] for row in rows]
    names = labels(session, jobs)
    places = analyses_of(session, jobs)
    return [job_view(job, names[job.id], places.get(job.id)) for job in jobs], cursor


def analyses_of(session: Session, jobs: Iterable[Job]) -> dict[int, int]:
    """The analysis that a plan belongs to, for the jobs that work on one."""
    plans = {job.id: job.subject_id for job in jobs if job.subject_kind == "plan"}
    if not plans:
        return {}
    found = session.execute(
        select(Plan.id, Plan.analysis_id).where(Plan.id.in_(set(plans.values())))
    )
    places = {row[0]: row[1] for row in found}
    return {job: places[plan] for job, plan in plans.items() if plan in places}


def labels(session: Session, jobs: Iterable[Job]) -> dict[int, str]:
    """What each job works on, by job id: one query a kind of subject."""
    wanted: dict[str, set[int]] = {}
    jobs = list(jobs)
    for job in jobs:
        if job.subject_kind is not None and job.subject_id is not None:
            wanted.setdefault(job.subject_kind, set()).add(job.subject_id)
    names: dict[tuple[str, int], str] = {}
    pair = Model.name + " · " + Dataset.name
    of_analysis = (
        select(Analysis.id, pair)
        .join(Model, Model.id == Analysis.model_id)
        .join(Dataset, Dataset.id == Analysis.dataset_id)
    )
    statements = {
        "model": select(Model.id, Model.name),
        "dataset": select(Dataset.id, Dataset.name),
        "analysis": of_analysis,
        "plan": of_analysis.join(Plan, Plan.analysis_id == Analysis.id).with_only_columns(
            Plan.id, pair
        ),
        "experiment": of_analysis.join(Plan, Plan.analysis_id == Analysis.id)
        .join(Experiment, Experiment.plan_id == Plan.id)
        .with_only_columns(Experiment.id, pair),
    }
    keys = {
        "model": Model.id,
        "dataset": Dataset.id,
        "analysis": Analysis.id,
        "plan": Plan.id,
        "experiment": Experiment.id,
    }
    for kind, ids in wanted.items():
        if kind in statements:
            found = session.execute(statements[kind].where(keys[kind].in_(ids)))
            names |= {(kind, row[0]): row[1] for row in found}
    return {job.id: names.get((job.subject_kind or "", job.subject_id or 0), "") for job in jobs}


def running_count(session: Session) -> int:
    return (
        session.scalar(select(func.count()).select_from(Job).where(Job.state == JobState.RUNNING))
        or 0
    )


def list_workers(session: Session) -> list[JSON]:
    rows = session.scalars(select(Worker).order_by(Worker.heartbeat_at.desc()).limit(100))
    return [worker_view(row) for row in rows]
