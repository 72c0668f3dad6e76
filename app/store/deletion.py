"""What goes when something is deleted.

Without cascade, whatever depends on the thing forbids its deletion, and so does a running job. With
cascade all of that goes too. A job is deleted with its subject: a queued one simply never runs, and
the worker of a running one finds at its next write or heartbeat that it has lost its lease, so that
it drops the work. Measured points go with the last analysis that shows them.

Each `delete_…` works in the caller's transaction and returns the hashes of files that may be
without any owner now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from app.domain.errors import Conflict
from app.domain.words import JobState
from app.store.events import analysis_topic, experiment_topic
from app.store.tables import (
    Analysis,
    Baseline,
    Dataset,
    Experiment,
    Job,
    Model,
    Outcome,
    Plan,
    Point,
    Run,
    Topic,
)

_NAMED = 5


def delete_model(session: Session, model: Model, *, cascade: bool) -> set[str]:
    analyses = _ids(session, select(Analysis.id).where(Analysis.model_id == model.id))
    _refuse(session, "Model", "model", model.id, {"analysis": analyses}, cascade)
    hashes = _drop_analyses(session, analyses)
    _drop_jobs(session, "model", [model.id])
    session.delete(model)
    session.flush()
    return hashes | {sha256 for sha256 in (model.sha256, model.derived_sha256) if sha256}


def delete_dataset(session: Session, dataset: Dataset, *, cascade: bool) -> set[str]:
    analyses = _ids(session, select(Analysis.id).where(Analysis.dataset_id == dataset.id))
    _refuse(session, "Data set", "dataset", dataset.id, {"analysis": analyses}, cascade)
    hashes = _drop_analyses(session, analyses)
    _drop_jobs(session, "dataset", [dataset.id])
    session.delete(dataset)
    session.flush()
    return hashes | {dataset.sha256}


def delete_analysis(session: Session, analysis: Analysis, *, cascade: bool) -> set[str]:
    plans = _ids(session, select(Plan.id).where(Plan.analysis_id == analysis.id))
    _refuse(session, "Analysis", "analysis", analysis.id, {"plan": plans}, cascade)
    return _drop_analyses(session, [analysis.id])


def delete_plan(session: Session, plan: Plan, *, cascade: bool) -> set[str]:
    experiments = _ids(session, select(Experiment.id).where(Experiment.plan_id == plan.id))
    _refuse(session, "Plan", "plan", plan.id, {"experiment": experiments}, cascade)
    return _drop_plans(session, [plan.id])


def delete_experiment(session: Session, experiment: Experiment, *, cascade: bool) -> set[str]:
    _refuse(session, "Experiment", "experiment", experiment.id, {}, cascade)
    return _drop_experiments(session, [experiment.id])


def _drop_analyses(session: Session, ids: Sequence[int]) -> set[str]:
    _drop_jobs(session, "analysis", ids)
    hashes = _drop_plans(session, _ids(session, select(Plan.id).where(Plan.analysis_id.in_(ids))))
    contexts = set(
        session.scalars(
            select(Analysis.context).where(Analysis.id.in_(ids), Analysis.context.is_not(None))
        )
    )
    session.execute(delete(Analysis).where(Analysis.id.in_(ids)))
    kept = set(session.scalars(select(Analysis.context).where(Analysis.context.in_(contexts))))
    for table in (Outcome, Point, Baseline):
        session.execute(delete(table).where(table.context.in_(contexts - kept)))
    _drop_topics(session, map(analysis_topic, ids))
    return hashes


def _drop_plans(session: Session, ids: Sequence[int]) -> set[str]:
    _drop_jobs(session, "plan", ids)
    experiments = _ids(session, select(Experiment.id).where(Experiment.plan_id.in_(ids)))
    hashes = _drop_experiments(session, experiments)
    session.execute(delete(Plan).where(Plan.id.in_(ids)))
    return hashes


def _drop_experiments(session: Session, ids: Sequence[int]) -> set[str]:
    _drop_jobs(session, "experiment", ids)
    checkpoints = session.scalars(
        select(Run.checkpoint_sha256).where(Run.experiment_id.in_(ids))
    ).all()
    session.execute(delete(Experiment).where(Experiment.id.in_(ids)))
    _drop_topics(session, map(experiment_topic, ids))
    return {sha256 for sha256 in checkpoints if sha256 is not None}


def _drop_jobs(session: Session, kind: str, ids: Sequence[int]) -> None:
    # First of all, because it waits for a worker that is in the middle of a write.
    session.execute(delete(Job).where(Job.subject_kind == kind, Job.subject_id.in_(ids)))


def _drop_topics(session: Session, names: Iterable[str]) -> None:
    session.execute(delete(Topic).where(Topic.name.in_(list(names))))


def _ids(session: Session, statement: Select[int]) -> Sequence[int]:
    return session.scalars(statement).all()


def _refuse(
    session: Session,
    title: str,
    kind: str,
    id: int,
    dependants: dict[str, Sequence[int]],
    cascade: bool,
) -> None:
    if cascade:
        return
    for noun, ids in dependants.items():
        if ids:
            raise Conflict(
                f"{title} {id} can't be deleted because {_listed(noun, ids)} it.",
                "Delete that first, or repeat the request with cascade=true to delete everything.",
            )
    running = session.scalar(
        select(Job.id).where(
            Job.subject_kind == kind, Job.subject_id == id, Job.state == JobState.RUNNING
        )
    )
    if running is not None:
        raise Conflict(
            f"{title} {id} can't be deleted while job {running} is working on it.",
            "Cancel the job first, or repeat the request with cascade=true.",
        )


def _listed(noun: str, ids: Sequence[int]) -> str:
    plural = {"analysis": "analyses"}.get(noun, f"{noun}s")
    names = ", ".join(str(id) for id in sorted(ids)[:_NAMED])
    if len(ids) == 1:
        return f"{noun} {names} depends on"
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"{plural} {names}{more} depend on"
