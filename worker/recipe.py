"""The recipe: what was pruned, by which criterion, from which bytes, with which result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.store import plans
from app.store.tables import Analysis, Dataset, Experiment, Measurement, Model, Plan, Run
from worker.tasks.pruning import PLAN_RUN, Pruning

RECIPE_FORMAT = "prunescope-recipe/1"


def recipe_document(
    *,
    plan: Plan,
    analysis: Analysis,
    model: Model,
    dataset: Dataset,
    measurements: Sequence[Measurement],
    pruning: Pruning,
    removed: Mapping[str, int],
    experiment: Experiment | None,
    run: Run | None,
) -> dict[str, Any]:
    """Everything needed to do the same again elsewhere, as JSON.

    `removed` counts the entries that left each unit; `units[].asked` and `achieved` are fractions.
    For an experiment's run, `result` holds its figures before and after retraining; for a plan, its
    prediction and its measurements.
    """
    achieved = pruning.achieved(removed)
    is_plan = run is None or run.name == PLAN_RUN
    asked = plan.sparsities if is_plan else (run.sparsities if run else None) or {}
    document: dict[str, Any] = {
        "format": RECIPE_FORMAT,
        "model": {"name": model.name, "sha256": model.sha256, "bytes": model.bytes},
        "dataset": {
            "name": dataset.name,
            "sha256": dataset.sha256,
            "task": dataset.task,
            "options": dataset.options or {},
        },
        "granularity": analysis.granularity,
        "criterion": plan.criterion if run is None or is_plan else run.name,
        "seed": analysis.seed,
        "recalibrate_batch_norm": analysis.recalibrate_batch_norm,
        "plan": {"id": plan.id, "name": plan.name},
        "sparsity": pruning.sparsity(removed),
        "units": [
            {
                "id": unit,
                "asked": asked.get(unit, 0.0),
                "achieved": fraction,
                "removed": removed[unit],
                "size": pruning.sizes[unit],
            }
            for unit, fraction in achieved.items()
            if fraction > 0 or asked.get(unit, 0.0) > 0
        ],
        "result": {
            "predicted": plan.predicted,
            "measured": [plans.measurement_json(row) for row in measurements],
        },
    }
    if model.architecture is not None:
        document["model"] |= {
            "architecture": model.architecture,
            "architecture_args": model.architecture_args or {},
        }
    if experiment is not None and run is not None:
        document["experiment"] = {
            "id": experiment.id,
            "run": run.name,
            "settings": experiment.settings,
            "dense": experiment.baseline,
        }
        document["result"] = {
            "before": run.before,
            "after": run.after,
            "best_epoch": run.best_epoch,
        }
    return document
