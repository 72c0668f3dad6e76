"""Sensitivity analyses: a grid of cells on one model and one data set."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.cells import context_key
from app.domain.errors import Conflict, NotFound
from app.domain.goals import evaluation_of
from app.domain.words import Granularity, JobKind, Priority, SplitName, Status
from app.store import datasets, deletion, known, models, queue, steering
from app.store.blobs import Blobs, drop_unreferenced
from app.store.clock import now
from app.store.events import analysis_topic
from app.store.paging import Page, paged
from app.store.store import Store
from app.store.tables import Analysis, Baseline, Dataset, Model


def create(
    session: Session,
    *,
    model_id: int,
    dataset_id: int,
    levels: Sequence[int],
    granularity: str = Granularity.WEIGHT,
    criteria: Sequence[str] = ("magnitude",),
    units: Sequence[str] | None = None,
    evaluation: dict[str, Any] | None = None,
    recalibrate_batch_norm: bool = False,
    seed: int = 0,
    priority: Priority = Priority.NORMAL,
) -> Analysis:
    """An analysis, and the queued job that measures it (payload `{analysis_id}`).

    `levels` in millionths; `units` None for all prunable ones; `evaluation` as app.domain.goals,
    completed from its defaults. Raises NotFound, and Conflict for a model or data set that is not
    ready.
    """
    model, dataset = models.get(session, model_id), datasets.get(session, dataset_id)
    require_ready(model, f"Model {model_id}")
    require_ready(dataset, f"Data set {dataset_id}")
    analysis = Analysis(
        model_id=model_id,
        dataset_id=dataset_id,
        granularity=str(granularity),
        criteria=list(criteria),
        levels=sorted(set(levels)),
        units=None if units is None else list(units),
        evaluation=evaluation_of(evaluation),
        recalibrate_batch_norm=recalibrate_batch_norm,
        seed=seed,
        created_at=now(session),
    )
    analysis.context = context_of(analysis, model, dataset)
    analysis.known = known.count_known(session, analysis, model, dataset)
    session.add(analysis)
    session.flush()
    job = queue.enqueue(
        session,
        JobKind.ANALYSE,
        {"analysis_id": analysis.id},
        subject=("analysis", analysis.id),
        topic=analysis_topic(analysis.id),
        priority=steering.priority_number(JobKind.ANALYSE, priority),
    )
    analysis.job_id = job.id
    session.flush()
    return analysis


def context_of(
    analysis: Analysis, model: Model, dataset: Dataset, split: str = SplitName.TUNE
) -> str:
    """The key of what the analysis's points depend on beside unit, criterion and level."""
    evaluation = evaluation_of(analysis.evaluation)
    return context_key(
        model_sha256=model.derived_sha256 or model.sha256,
        dataset_sha256=dataset.sha256,
        task=dataset.task,
        options=dataset.options,
        split=split,
        granularity=analysis.granularity,
        precision=evaluation["precision"],
        method=evaluation["method"],
        recalibrate_batch_norm=analysis.recalibrate_batch_norm,
        seed=analysis.seed,
    )


def sharpen(session: Session, analysis_id: int, goal: dict[str, Any]) -> Analysis:
    """Add `{units, sparsities, half_width, exact}` to the goals and have it measured.

    Raises NotFound, and Conflict when its job was deleted.
    """
    analysis = get(session, analysis_id)
    if analysis.job_id is None:
        raise Conflict(f"Analysis {analysis_id} has no job any more.", "Start a new analysis.")
    if goal not in (analysis.goals or []):
        analysis.goals = [*(analysis.goals or []), goal]
    steering.ask_for_more(session, analysis.job_id)
    return analysis


def require_ready(row: Model | Dataset, title: str) -> None:
    """Raises Conflict when an import has failed or is not finished; `title` begins its sentence."""
    if row.status == Status.IMPORTING:
        raise Conflict(f"{title} is still being imported.", "Try again when its status is ready.")
    if row.status == Status.FAILED:
        reason = (row.error or {}).get("message", "")
        raise Conflict(
            f"{title} could not be imported. {reason}".strip(), "Upload a file that works first."
        )


def get(session: Session, analysis_id: int) -> Analysis:
    """Raises NotFound."""
    analysis = session.get(Analysis, analysis_id)
    if analysis is None:
        raise NotFound(f"There is no analysis {analysis_id}.", "It may have been deleted.")
    return analysis


def listing(
    session: Session,
    *,
    limit: int = 50,
    cursor: str | None = None,
    model_id: int | None = None,
    dataset_id: int | None = None,
) -> Page[Analysis]:
    """Analyses, newest first, of one model or data set if asked."""
    statement = select(Analysis)
    if model_id is not None:
        statement = statement.where(Analysis.model_id == model_id)
    if dataset_id is not None:
        statement = statement.where(Analysis.dataset_id == dataset_id)
    return paged(session, statement, Analysis.id, limit, cursor)


def baseline(session: Session, analysis: Analysis) -> Baseline | None:
    """The dense network's figures; None until they are measured."""
    return None if analysis.context is None else session.get(Baseline, analysis.context)


def baselines(session: Session, analyses: Collection[Analysis]) -> dict[str, Baseline]:
    """The known baselines of several analyses, by context."""
    contexts = {analysis.context for analysis in analyses if analysis.context is not None}
    statement = select(Baseline).where(Baseline.context.in_(contexts))
    return {row.context: row for row in session.scalars(statement)}


def delete(store: Store, blobs: Blobs, analysis_id: int, *, cascade: bool = False) -> None:
    """Delete an analysis, with its points unless another analysis shows them too.

    Raises NotFound, and without `cascade` Conflict while plans or a running job depend on it.
    """
    with store.write() as session:
        hashes = deletion.delete_analysis(session, get(session, analysis_id), cascade=cascade)
    drop_unreferenced(store, blobs, hashes)
