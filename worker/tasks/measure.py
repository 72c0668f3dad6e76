"""Run a plan's joint pruning on a split, and store what came out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.domain.statistics import DEFAULT_CONFIDENCE
from app.store import events, plans
from app.store.tables import Analysis, Dataset, Measurement, Model, Plan
from worker.context import JobContext
from worker.tasks import uploads
from worker.tasks.pruning import Pruning
from worker.tasks.reports import Figures, Measured, Progress, unexpected


def measure(context: JobContext) -> None:
    """Payload `{plan_id, split}`. A measurement is a fact: a known one is announced, not redone."""
    plan_id, split = context.payload["plan_id"], context.payload["split"]
    with context.store.read() as session:
        plan = session.get_one(Plan, plan_id)
        analysis = session.get_one(Analysis, plan.analysis_id)
        model = session.get_one(Model, analysis.model_id)
        dataset = session.get_one(Dataset, analysis.dataset_id)
        known = plans.find_measurement(session, plan_id, split)
    if known is not None:
        with context.write() as session:
            announce(session, context, plan_id, known)
        return
    uploads.require_network(model)
    size = uploads.split_size(dataset, split)
    pruning = Pruning.of_plan(uploads.unit_sizes(model), plan, analysis)

    def hear(kind: str, body: Mapping[str, Any], folder: Path) -> None:
        if kind != "progress":
            raise unexpected(kind)
        context.progress(Progress.of(body).fraction, 1.0, None)

    arguments = uploads.reading(dataset) | {"split": split, "pruning": pruning.argument}
    files = uploads.files_of(context, model, dataset)
    with context.inside("measure", arguments, files, hear) as result:
        found = Measured.of(result.value)
    found.dense.check(size)
    found.pruned.check(size)
    found.pruned.check_against(found.dense)
    row = Measurement(
        plan_id=plan_id,
        job_id=context.lease.job_id,
        split=split,
        confidence=DEFAULT_CONFIDENCE,
        sparsity=pruning.sparsity(pruning.removed),
        baseline=dense_json(found.dense),
        **found.pruned.columns(),
        **found.pruned.paired(),
    )
    with context.write() as session:
        session.add(row)
        session.flush()
        announce(session, context, plan_id, row)


def dense_json(figures: Figures) -> dict[str, Any]:
    return {
        "kind": figures.kind.value,
        "accuracy": figures.accuracy,
        "correct": figures.correct,
        "loss": figures.loss,
        "metrics": figures.metrics_json(),
    }


def announce(session: Session, context: JobContext, plan_id: int, row: Measurement) -> None:
    events.publish(
        session,
        context.lease.topic,
        "measurement",
        {"plan_id": plan_id, "measurement": plans.measurement_json(row)},
    )
