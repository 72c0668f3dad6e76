"""Run a plan's joint pruning on a split, and store what came out."""

from __future__ import annotations

from typing import Any

from app.domain.statistics import DEFAULT_CONFIDENCE, wilson
from app.store import events, plans
from app.store.tables import Analysis, Dataset, Measurement, Model, Plan
from worker.context import JobContext
from worker.engine.evaluation import dense_predictions, evaluate
from worker.engine.masks import MaskSet
from worker.opening import open_files


def measure(context: JobContext) -> None:
    """Payload `{plan_id, split}`. A measurement is a fact: a known one is announced, not redone."""
    plan_id, split_name = context.payload["plan_id"], context.payload["split"]
    with context.store.read() as session:
        plan = session.get_one(Plan, plan_id)
        analysis = session.get_one(Analysis, plan.analysis_id)
        model_row = session.get_one(Model, analysis.model_id)
        dataset_row = session.get_one(Dataset, analysis.dataset_id)
        known = plans.find_measurement(session, plan_id, split_name)
    if known is not None:
        with context.write() as session:
            announce(session, context, plan_id, known)
        return
    opened = open_files(
        context.blobs.local_path(model_row.sha256),
        context.blobs.local_path(dataset_row.sha256),
        dataset_row.task,
        context.scratch("datasets", dataset_row.sha256),
    )
    split = opened.split(split_name)
    masks = MaskSet.from_plan(
        opened.model, opened.units, plan.sparsities, plan.criterion, analysis.seed
    )

    def report(start: float, fraction: float) -> None:
        context.progress(start + fraction / 2, 1.0, None)

    dense = dense_predictions(
        opened.model,
        split,
        on_progress=lambda fraction: report(0.0, fraction),
        should_stop=context.should_stop,
    )
    figures = evaluate(
        opened.model,
        split,
        masks=masks,
        reference=dense,
        on_progress=lambda fraction: report(0.5, fraction),
        should_stop=context.should_stop,
    )
    interval = wilson(figures.correct, figures.samples)
    row = Measurement(
        plan_id=plan_id,
        job_id=context.lease.job_id,
        split=split_name,
        samples=figures.samples,
        correct=figures.correct,
        accuracy=figures.accuracy,
        loss=figures.loss,
        low=interval.low,
        high=interval.high,
        confidence=DEFAULT_CONFIDENCE,
        sparsity=masks.sparsity(),
        flips=figures.flips,
        lost=figures.lost,
        gained=figures.gained,
        baseline={"accuracy": dense.evaluation.accuracy, "correct": dense.evaluation.correct},
    )
    with context.write() as session:
        session.add(row)
        session.flush()
        announce(session, context, plan_id, row)


def announce(session: Any, context: JobContext, plan_id: int, row: Measurement) -> None:
    events.publish(
        session,
        context.lease.topic,
        "measurement",
        {"plan_id": plan_id, "measurement": plans.measurement_json(row)},
    )
