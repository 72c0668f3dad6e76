"""Analyses, their curves and plans. Points come as plain tuples: there can be ten thousand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.domain.curve_json import curves_json
from app.domain.goals import evaluation_of
from app.domain.levels import to_sparsity
from app.domain.metrics import METRICS, Kind, Metric, primary
from app.domain.point_facts import PointFacts, PointReader
from app.domain.prediction import (
    CurvePoint,
    UnitFacts,
    curve_point,
    plan_costs,
    predict_metric,
    unpaired_point,
)
from app.domain.statistics import DEFAULT_CONFIDENCE
from app.store.steering import priority_word
from app.store.tables import Analysis, Baseline, Dataset, Job, Measurement, Model, Plan
from app.web.numbers import finite
from app.web.views.common import JSON, instant, job_status
from app.web.views.metrics import estimates, judged_by, kind_of


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
        "arithmetic": row.arithmetic,
    }


def analysis_summary(
    row: Analysis, job: Job | None, model: Model, dataset: Dataset, baseline: Baseline | None
) -> JSON:
    status = job_status(job)
    status["progress"] = {"samples": 0} | status["progress"]
    return {
        "id": row.id,
        "model_id": row.model_id,
        "dataset_id": row.dataset_id,
        "model_name": model.name,
        "dataset_name": dataset.name,
        "job_id": row.job_id,
        **status,
        "paused": job is not None and job.paused,
        "priority": "normal" if job is None else priority_word(job).value,
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
    points: Sequence[PointFacts],
    reader: PointReader,
    *,
    event_id: int,
) -> JSON:
    """GET /api/analyses/{id}. `points` are fresh, and of this analysis alone."""
    analysed = analysed_units(row, units)
    remarks = row.remarks or []
    known = row.known or 0
    refused = sum(each["unit"] in set(analysed) for each in remarks) * len(row.levels)
    total = len(analysed) * len(row.criteria) * len(row.levels) - refused + len(row.extra or [])
    curves = curves_json(analysed, row.criteria, points, reader, remarks)
    shown = [point for curve in curves for point in curve["points"]]
    return summary | {
        "granularity": str(row.granularity),
        "criteria": row.criteria,
        "sparsities": [to_sparsity(level) for level in row.levels],
        "evaluation": evaluation_of(row.evaluation),
        "goals": row.goals or [],
        "recalibrate_batch_norm": row.recalibrate_batch_norm,
        "seed": row.seed,
        "known": known,
        "cells": {
            "total": total,
            "known": known,
            "done": len(shown),
            "settled": sum(point["settled"] for point in shown),
        },
        "remarks": remarks,
        "event_id": event_id,
        "units": list(units),
        "curves": curves,
    }


def thin_curves(
    points: Iterable[PointFacts], units: Sequence[str], criterion: str, metric: str
) -> dict[str, list[list[float]]]:
    """`{unit: [[sparsity, value], …]}` of those that have points with this metric."""
    found: dict[str, list[list[float]]] = {unit: [] for unit in units}
    for point in points:
        value = point.estimates.get(metric, {}).get("value")
        if value is not None and point.criterion == criterion and point.unit in found:
            found[point.unit].append([to_sparsity(point.level), value])
    return {unit: line for unit, line in found.items() if line}


def curve_points(
    points: Iterable[PointFacts],
    metric: Metric,
    kind: Kind,
    confidence: float = DEFAULT_CONFIDENCE,
) -> dict[str, list[CurvePoint]]:
    """The curve of each unit in one metric; points without a value are left out.

    What was lost and gained is counted in answers; only where a sample has one answer are they
    paired samples, and only over a whole split do they tell the deviation of the drop. Of an
    estimate the deviation is that of its interval at `confidence`.
    """
    paired = metric.name == "accuracy" and kind == Kind.SINGLE_LABEL
    curves: dict[str, list[CurvePoint]] = {}
    for point in points:
        known = point.estimates.get(metric.name)
        if known is None or known["value"] is None:
            continue
        sparsity = to_sparsity(point.level)
        if not paired:
            entry = unpaired_point(sparsity, **known, confidence=confidence)
        elif not point.whole and (drop := point.estimated_drop) is not None:
            # The accuracy's own interval is cut at 0 and 1; the drop's is not.
            value = known["value"]
            entry = unpaired_point(sparsity, value, drop.low, drop.high, confidence)
        elif point.lost is not None and point.gained is not None:
            entry = curve_point(sparsity, known["value"], point.lost, point.gained, point.samples)
        else:
            entry = unpaired_point(sparsity, **known, confidence=confidence)
        curves.setdefault(point.unit, []).append(entry)
    return curves


def predict(
    sparsities: Mapping[str, float],
    criterion: str,
    points: Iterable[PointFacts],
    baseline: Baseline,
    kind: Kind,
    facts: Mapping[str, Any],
    confidence: float = DEFAULT_CONFIDENCE,
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
            curve_points(chosen, metric, kind, confidence), start, sparsities, metric
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
