"""Experiments and their runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.domain.metrics import Kind
from app.store.tables import Epoch, Experiment, Job, Model, Plan, Run
from app.web.numbers import finite
from app.web.views.common import JSON, instant, job_status
from app.web.views.metrics import estimates, judged_by


def experiment_summary(
    row: Experiment, job: Job | None, plan: Plan, model: Model, kind: Kind
) -> JSON:
    return {
        "id": row.id,
        "plan_id": row.plan_id,
        "analysis_id": plan.analysis_id,
        "model_id": model.id,
        "model_name": model.name,
        "settings": row.settings,
        "job_id": row.job_id,
        **job_status(job),
        **judged_by(kind),
        "created_at": instant(row.created_at),
    }


def experiment_view(
    summary: JSON, row: Experiment, runs: Iterable[tuple[Run, Iterable[Epoch]]], event_id: int
) -> JSON:
    """GET /api/experiments/{id}; runs in the order in which they are computed."""
    return summary | {
        "event_id": event_id,
        "baseline": figures(row.baseline),
        "runs": [run_view(run, epochs) for run, epochs in runs],
    }


def run_view(row: Run, epochs: Iterable[Epoch]) -> JSON:
    return {
        "name": row.name,
        "trajectory": [epoch_view(epoch) for epoch in epochs],
        "before": figures(row.before),
        "after": figures(row.after),
        "best_epoch": row.best_epoch,
    }


def epoch_view(row: Epoch) -> JSON:
    return {
        "step": row.step,
        "epoch": row.epoch,
        "sparsity": row.sparsity,
        "train_loss": finite(row.train_loss),
        "tune_accuracy": row.tune_accuracy,
        "tune_loss": finite(row.tune_loss),
        "low": row.low,
        "high": row.high,
        "tune_metrics": estimates(
            row.tune_metrics, row.tune_accuracy, row.low, row.high, row.tune_loss
        ),
        "learning_rate": row.learning_rate,
    }


def figures(stored: Mapping[str, Any] | None) -> JSON | None:
    """A row of the before/after table, as the worker stored it, without what JSON can't say."""
    if stored is None:
        return None
    plain = {
        name: finite(value) if isinstance(value, float) else value for name, value in stored.items()
    }
    parts = [plain.get(name) for name in ("accuracy", "low", "high", "loss")]
    return plain | {"metrics": estimates(stored.get("metrics"), *parts)}
