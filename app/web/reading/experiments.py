"""Experiments with their runs and epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.domain.errors import Conflict, NotFound
from app.domain.metrics import Kind
from app.store import experiments as store_experiments
from app.store.events import experiment_topic
from app.store.tables import (
    Analysis,
    Baseline,
    Dataset,
    Experiment,
    Job,
    Model,
    Plan,
    Run,
    Topic,
)
from app.web.paging import Paging, fetch
from app.web.views.common import JSON
from app.web.views.experiments import experiment_summary, experiment_view
from app.web.views.metrics import kind_of


@dataclass(frozen=True)
class Found:
    row: Experiment
    job: Job | None
    plan: Plan
    model: Model
    kind: Kind
    event_id: int


def _with_neighbours() -> Select[Any]:
    return (
        select(Experiment, Job, Plan, Model, Dataset, Baseline)
        .join(Plan, Plan.id == Experiment.plan_id)
        .join(Analysis, Analysis.id == Plan.analysis_id)
        .join(Model, Model.id == Analysis.model_id)
        .join(Dataset, Dataset.id == Analysis.dataset_id)
        .outerjoin(Baseline, Baseline.context == Analysis.context)
        .outerjoin(Job, Job.id == Experiment.job_id)
    )


def find(session: Session, experiment_id: int) -> Found:
    """Raises NotFound."""
    seq = select(Topic.seq).where(Topic.name == experiment_topic(experiment_id)).scalar_subquery()
    statement = _with_neighbours().add_columns(seq).where(Experiment.id == experiment_id)
    found = session.execute(statement).first()
    if found is None:
        raise NotFound(
            f"There is no experiment {experiment_id}.", "GET /api/experiments lists them."
        )
    row, job, plan, model, dataset, baseline, event_id = found
    return Found(row, job, plan, model, kind_of(baseline, dataset), event_id or 0)


def view(session: Session, found: Found) -> JSON:
    summary = experiment_summary(found.row, found.job, found.plan, found.model, found.kind)
    runs = store_experiments.runs(session, found.row.id)
    epochs = store_experiments.trajectories(session, [run.id for run in runs])
    return experiment_view(
        summary, found.row, [(run, epochs[run.id]) for run in runs], found.event_id
    )


def finished_run(session: Session, experiment_id: int, name: str) -> Run:
    """The run of that name. Raises NotFound, or Conflict when it has no checkpoint yet."""
    store_experiments.get(session, experiment_id)
    run = store_experiments.get_run(session, experiment_id, name)
    if run.checkpoint_sha256 is None:
        raise Conflict(
            f"The run {name} has no checkpoint yet.", "It is there once the run has finished."
        )
    return run


def list_experiments(
    session: Session,
    asked: Paging,
    plan_id: int | None = None,
    analysis_id: int | None = None,
) -> tuple[list[JSON], str | None]:
    statement = _with_neighbours()
    if plan_id is not None:
        statement = statement.where(Experiment.plan_id == plan_id)
    if analysis_id is not None:
        statement = statement.where(Plan.analysis_id == analysis_id)
    rows, cursor = fetch(session, statement, Experiment.id, asked)
    return [
        experiment_summary(row, job, plan, model, kind_of(baseline, dataset))
        for row, job, plan, model, dataset, baseline in rows
    ], cursor
