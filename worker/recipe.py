"""The recipe: what was pruned, by which criterion, from which bytes, with which result."""

from __future__ import annotations

from typing import Any

from app.domain.levels import removed_count
from app.store import plans
from app.store.tables import Analysis, Dataset, Experiment, Measurement, Model, Plan, Run
from worker.engine.masks import MaskSet

RECIPE_FORMAT = "prunescope-recipe/1"


def recipe_document(
    *,
    plan: Plan,
    analysis: Analysis,
    model: Model,
    dataset: Dataset,
    measurements: list[Measurement],
    masks: MaskSet,
    experiment: Experiment | None,
    run: Run | None,
) -> dict[str, Any]:
    """Everything needed to do the same again elsewhere, as JSON.

    `units[].asked` and `achieved` are fractions. For an experiment's run, `result` holds its
    figures before and after retraining; for a plan, its prediction and its measurements.
    """
    achieved = masks.achieved()
    sizes = {unit["id"]: unit["size"] for unit in (model.units or {})["weight"]}
    asked = plan.sparsities if run is None or run.name == "plan" else (run.sparsities or {})
    document: dict[str, Any] = {
        "format": RECIPE_FORMAT,
        "model": {"name": model.name, "sha256": model.sha256, "bytes": model.bytes},
        "dataset": {"name": dataset.name, "sha256": dataset.sha256},
        "granularity": analysis.granularity,
        "criterion": plan.criterion if run is None or run.name == "plan" else run.name,
        "seed": analysis.seed,
        "plan": {"id": plan.id, "name": plan.name},
        "sparsity": masks.sparsity(),
        "units": [
            {
                "id": unit,
                "asked": asked.get(unit, 0.0),
                "achieved": fraction,
                "removed": removed_count(fraction, sizes[unit]),
                "size": sizes[unit],
            }
            for unit, fraction in achieved.items()
            if fraction > 0 or asked.get(unit, 0.0) > 0
        ],
        "result": {
            "predicted": plan.predicted,
            "measured": [plans.measurement_json(row) for row in measurements],
        },
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
