"""Analyses, their curves and plans. Points come as plain tuples: there can be ten thousand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from app.domain.levels import to_sparsity
from app.domain.metrics import METRICS, Kind, Metric, primary
from app.domain.prediction import (
    CurvePoint,
    UnitFacts,
    curve_point,
    plan_costs,
    predict_metric,
    unpaired_point,
)
from app.store.tables import Analysis, Baseline, Dataset, Job, Measurement, Model, Plan
from app.web.numbers import finite
from app.web.views.common import JSON, instant, job_status
from app.web.views.metrics import estimates, judged_by, kind_of


class PointFacts(NamedTuple):
    """The columns of a point that the page needs, in the order in which they are read."""

    unit: str
    criterion: str
    level: int
    size: int
    removed: int
    samples: int
    accuracy: float | None
    loss: float | None
    low: float | None
    high: float | None
    flips: int | None
    lost: int | None
    gained: int | None
    metrics: dict[str, Any] | None = None

    @property
    def estimates(self) -> dict[str, JSON]:
        return estimates(self.metrics, self.accuracy, self.low, self.high, self.loss)


def point_view(point: PointFacts) -> JSON:
    return {
        "sparsity": to_sparsity(point.level),
        "achieved": point.removed / point.size if point.size else 0.0,
        "accuracy": point.accuracy,
        "loss": finite(point.loss),
        "low": point.low,
        "high": point.high,
        "samples": point.samples,
        "flips": point.flips,
        "lost": point.lost,
        "gained": point.gained,
        "metrics": point.estimates,
    }


def baseline_view(row: Baseline | None) -> JSON | None:
    if row is None:
        return None
    return {
        "accuracy": row.accuracy,
        "loss": finite(row.loss),
        "low": row.low,
        "high": row.high,
        "samples": row.samples,
        "metrics": estimates(row.metrics, row.accuracy, row.low, row.high, row.loss),
    }


def curves_view(
    unit_ids: Sequence[str], criteria: Sequence[str], points: Iterable[PointFacts]
) -> list[JSON]:
    """One curve a unit and criterion, in network order, points by rising sparsity.

    `points` have to come sorted by level; curves without a point yet are there, empty.
    """
    curves: dict[tuple[str, str], list[JSON]] = {
        (unit, criterion): [] for unit in unit_ids for criterion in criteria
    }
    for point in points:
        curve = curves.get((point.unit, point.criterion))
        if curve is not None:
            curve.append(point_view(point))
    return [
        {"unit": unit, "criterion": criterion, "points": found}
        for (unit, criterion), found in curves.items()
    ]


def analysis_summary(
    row: Analysis, job: Job | None, model: Model, dataset: Dataset, baseline: Baseline | None
) -> JSON:
    return {
        "id": row.id,
        "model_id": row.model_id,
        "dataset_id": row.dataset_id,
        "model_name": model.name,
        "dataset_name": dataset.name,
        "job_id": row.job_id,
        **job_status(job),
        **judged_by(kind_of(baseline, dataset)),
        "baseline": baseline_view(baseline),
        "created_at": instant(row.created_at),
    }


def analysed_units(row: Analysis, units: Sequence[JSON]) -> list[str]:
    """The ids whose curves the analysis asks for, in network order."""
    chosen = None if row.units is None else set(row.units)
    return [
        unit["id"]
        for unit in units
        if unit["prunable"] and (chosen is None or unit["id"] in chosen)
    ]


def analysis_view(
    summary: JSON,
    row: Analysis,
    units: Sequence[JSON],
    points: Iterable[PointFacts],
    *,
    known: int,
    event_id: int,
) -> JSON:
    """GET /api/analyses/{id}."""
    return summary | {
        "granularity": str(row.granularity),
        "criteria": row.criteria,
        "sparsities": [to_sparsity(level) for level in row.levels],
        "evaluation": row.evaluation,
        "recalibrate_batch_norm": row.recalibrate_batch_norm,
        "seed": row.seed,
        "known": known,
        "event_id": event_id,
        "units": list(units),
        "curves": curves_view(analysed_units(row, units), row.criteria, points),
    }


def thin_curves(curves: Iterable[JSON], metric: str) -> dict[str, list[list[float]]]:
    """`{unit: [[sparsity, value], …]}` of those that have points with this metric."""
    thin: dict[str, list[list[float]]] = {}
    for curve in curves:
        for point in curve["points"]:
            value = point["metrics"].get(metric, {}).get("value")
            if value is not None:
                thin.setdefault(curve["unit"], []).append([point["sparsity"], value])
    return thin


def curve_points(
    points: Iterable[PointFacts], metric: Metric, kind: Kind
) -> dict[str, list[CurvePoint]]:
    """The curve of each unit in one metric; points without a value are left out.

    What was lost and gained is counted in answers; only where a sample has one answer are they
    paired samples.
    """
    paired = metric.name == "accuracy" and kind == Kind.SINGLE_LABEL
    curves: dict[str, list[CurvePoint]] = {}
    for point in points:
        known = point.estimates.get(metric.name)
        if known is None or known["value"] is None:
            continue
        sparsity = to_sparsity(point.level)
        if paired and point.lost is not None and point.gained is not None:
            entry = curve_point(sparsity, known["value"], point.lost, point.gained, point.samples)
        else:
            entry = unpaired_point(sparsity, **known)
        curves.setdefault(point.unit, []).append(entry)
    return curves


def predict(
    sparsities: Mapping[str, float],
    criterion: str,
    points: Iterable[PointFacts],
    baseline: Baseline,
    kind: Kind,
    facts: Mapping[str, Any],
) -> JSON:
    """`predicted` of a plan, from stored points. `points` sorted by level.

    `metrics` has all that the baseline has a value of, the primary one among them.
    """
    chosen = [p for p in points if p.criterion == criterion and p.unit in sparsities]
    dense = estimates(
        baseline.metrics, baseline.accuracy, baseline.low, baseline.high, baseline.loss
    )
    metrics: dict[str, JSON] = {}
    for metric in METRICS[kind]:
        start = dense.get(metric.name, {}).get("value")
        if start is None:
            continue
        value, low, high = predict_metric(
            curve_points(chosen, metric, kind), start, sparsities, metric
        )
        metrics[metric.name] = {"value": value, "low": low, "high": high}
    accuracy = metrics.get("accuracy", {})
    sparsity, parameters, macs, stored = plan_costs(
        [UnitFacts(**unit) for unit in facts["units"]],
        sparsities,
        total_parameters=facts["total_parameters"],
        total_macs=facts["total_macs"],
        total_bytes=facts["total_bytes"],
    )
    return {
        "accuracy": accuracy.get("value"),
        "low": accuracy.get("low"),
        "high": accuracy.get("high"),
        "metric": primary(kind).name,
        "metrics": metrics,
        "sparsity": sparsity,
        "parameters": parameters,
        "macs": macs,
        "bytes": stored,
    }


def predicted_view(stored: Mapping[str, Any]) -> JSON:
    """Plans of earlier versions were predicted by their accuracy alone."""
    if "metrics" in stored:
        return dict(stored)
    metrics = estimates(None, stored.get("accuracy"), stored.get("low"), stored.get("high"))
    return {"metric": "accuracy", "metrics": metrics, **stored}


def measurement_view(row: Measurement) -> JSON:
    return {
        "split": row.split,
        "accuracy": row.accuracy,
        "loss": finite(row.loss),
        "low": row.low,
        "high": row.high,
        "samples": row.samples,
        "confidence": row.confidence,
        "sparsity": row.sparsity,
        "flips": row.flips,
        "lost": row.lost,
        "gained": row.gained,
        "metrics": estimates(row.metrics, row.accuracy, row.low, row.high, row.loss),
        "baseline": row.baseline,
        "created_at": instant(row.created_at),
    }


def plan_view(row: Plan, measurements: Iterable[Measurement]) -> JSON:
    """GET /api/plans/{id}."""
    return {
        "id": row.id,
        "analysis_id": row.analysis_id,
        "criterion": row.criterion,
        "name": row.name or "",
        "sparsities": row.sparsities,
        "predicted": predicted_view(row.predicted),
        "measurements": [measurement_view(each) for each in measurements],
        "certificates": [],
        "created_at": instant(row.created_at),
    }
