"""Rows of every kind of task, written straight into a store: what a worker would have measured."""

from __future__ import annotations

from typing import Any

from app.domain.metrics import METRICS, Kind
from app.domain.words import Status
from app.store import points, queue
from app.store.tables import Analysis, Baseline, Dataset, Measurement, Model, Plan, Point
from tests.contract.site import (
    SAMPLES,
    Site,
    ready_dataset,
    start_analysis,
    take_job,
)

NASTY = '<img src=x onerror="alert(1)">'
DENSE: dict[Kind, dict[str, float]] = {
    Kind.SINGLE_LABEL: {
        "accuracy": 0.9, "top5": 0.99, "macro_f1": 0.88, "auroc": 0.97, "loss": 0.3,
    },
    Kind.MULTI_LABEL: {
        "accuracy": 0.93, "exact_match": 0.6, "macro_f1": 0.8, "auroc": 0.95, "loss": 0.2,
    },
    Kind.PER_POSITION: {"accuracy": 0.85, "macro_f1": 0.7, "loss": 0.5},
    Kind.REGRESSION: {"mse": 0.5, "mae": 0.4, "r2": 0.8, "loss": 0.5},
    Kind.LANGUAGE_MODELLING: {"perplexity": 20.0, "accuracy": 0.4, "top5": 0.7, "loss": 3.0},
}  # fmt: skip
TASKS = {
    Kind.REGRESSION: "regression",
    Kind.LANGUAGE_MODELLING: "language-modelling",
}


def figures(kind: Kind, harm: float) -> dict[str, Any]:
    """All metrics of the kind, worse by `harm` (0: dense). Only some have an interval."""
    found = {}
    for metric in METRICS[kind]:
        dense = DENSE[kind][metric.name]
        if metric.higher_is_better:
            value = dense * (1 - harm) if metric.fraction else dense - 2 * harm
        else:
            value = dense * (1 + 4 * harm)
        known = metric.name in ("accuracy", "mse", "mae", "perplexity")
        half = 0.02 * abs(dense)
        found[metric.name] = {
            "value": value,
            "low": value - half if known else None,
            "high": value + half if known else None,
        }
    return found


def columns(kind: Kind, harm: float) -> dict[str, Any]:
    """What the columns of a row say of those figures."""
    metrics = figures(kind, harm)
    accuracy = metrics.get("accuracy", {"value": None, "low": None, "high": None})
    right = accuracy["value"] is not None
    return {
        "samples": SAMPLES,
        "correct": round(accuracy["value"] * SAMPLES) if right else None,
        "accuracy": accuracy["value"],
        "low": accuracy["low"],
        "high": accuracy["high"],
        "loss": metrics["loss"]["value"],
        "metrics": metrics,
    }


def harm_at(unit_id: str, level: int) -> float:
    return (0.2 + 0.1 * (sum(unit_id.encode()) % 7)) * (level / 1e6) ** 2


def finish_kind(site: Site, kind: Kind, context: str = "kinds") -> int:
    """Do the waiting analysis as if its network were of this kind; returns its id."""
    lease = take_job(site, "analyse")
    analysis_id = lease.payload["analysis_id"]
    right = "accuracy" in DENSE[kind]
    with queue.fenced(site.store, lease) as session:
        row = session.get_one(Analysis, analysis_id)
        row.context = context
        session.add(Baseline(context=context, kind=kind.value, **columns(kind, 0)))
        units = (session.get_one(Model, row.model_id).units or {})["weight"]
        paired = {"flips": 40, "lost": 30, "gained": 5} if right else {}
        points.add(
            session,
            [
                Point(
                    context=context, unit=each["id"], criterion="magnitude", level=level,
                    size=each["size"], removed=round(level / 1e6 * each["size"]),
                    **columns(kind, harm_at(each["id"], level)), **paired,
                )
                for each in units if each["prunable"]
                for level in row.levels
            ],
        )  # fmt: skip
        queue.finish(session, lease)
    return analysis_id


def analysed_kind(site: Site, kind: Kind, **body: Any) -> int:
    """A finished analysis of a network of this kind."""
    dataset_id = body.pop("dataset_id", None) or ready_dataset(site)
    with site.store.write() as session:
        dataset = session.get_one(Dataset, dataset_id)
        dataset.task = TASKS.get(kind, "classification")
        if kind == Kind.REGRESSION:
            dataset.classes = None
    start_analysis(site, dataset_id=dataset_id, **{"sparsities": [0.2, 0.4, 0.6, 0.8]} | body)
    return finish_kind(site, kind)


def finish_kind_measurement(site: Site, kind: Kind, harm: float = 0.1) -> None:
    lease = take_job(site, "measure")
    with queue.fenced(site.store, lease) as session:
        plan = session.get_one(Plan, lease.payload["plan_id"])
        session.add(
            Measurement(
                plan_id=plan.id, job_id=lease.job_id, split="tune", confidence=0.95,
                sparsity=plan.predicted["sparsity"], **columns(kind, harm),
                baseline=columns(kind, 0),
            )
        )  # fmt: skip
        queue.finish(session, lease)


def weights_model(site: Site, names: tuple[str, ...] = ("stem.weight", "stem.bias", NASTY)) -> int:
    """A model of which only the weights are known."""
    model_id = site.upload("models", b"only weights", "weights.safetensors")["id"]
    lease = take_job(site, "import-model")
    bell = [1, 3, 9, 22, 40, 60, 71, 60, 40, 22, 9, 3, 1]
    rows = [
        {
            "key": name, "also": [], "shape": [16, 3, 3, 3], "dtype": "float32", "numel": 432,
            "zeros": 12, "nan": 0, "inf": 0, "min": -0.4, "max": 0.4, "mean": 0.001, "std": 0.1,
            "histogram": {"low": -0.4, "high": 0.4, "counts": bell},
            "thresholds": {"50": 0.07, "80": 0.13, "90": 0.17, "95": 0.2},
        }
        for name in names
    ]  # fmt: skip
    with queue.fenced(site.store, lease) as session:
        row = session.get_one(Model, model_id)
        row.format = "safetensors"
        row.details = {
            "kind": "weights", "notes": ["All keys begin with “module.”."], "key_prefix": "module.",
            "nested_under": "state_dict", "weights": {"tensors": rows, "totals": {}},
        }  # fmt: skip
        row.parameters = 432 * len(rows)
        row.status = Status.READY
        queue.finish(session, lease)
    return model_id
