"""Curves in JSON: the same from the server, from `prunescope analyse` and from a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from app.domain.isotonic import isotonic_fit
from app.domain.knee import knee_of
from app.domain.levels import to_sparsity
from app.domain.metrics import METRICS, Kind, Metric, primary
from app.domain.point_facts import Dense, PointFacts, PointReader, estimates
from app.domain.statistics import normal_quantile
from app.domain.stream_order import PREVIEW

JSON = dict[str, Any]


def judged_by(kind: Kind) -> JSON:
    """`task`, `metric` and `metrics`: what is predicted, and what networks are judged by."""
    return {
        "task": kind.value,
        "metric": primary(kind).name,
        "metrics": [metric_json(metric) for metric in METRICS[kind]],
    }


def metric_json(metric: Metric) -> JSON:
    return {
        "name": metric.name,
        "label": metric.label,
        "higher_is_better": metric.higher_is_better,
        "fraction": metric.fraction,
    }


def dense_json(dense: Dense, low: float | None, high: float | None) -> JSON:
    """The dense network's figures; `low` and `high` are those of its accuracy."""
    return {
        "accuracy": dense.accuracy,
        "loss": dense.loss,
        "low": low,
        "high": high,
        "samples": dense.samples,
        "metrics": estimates(dense.metrics, dense.accuracy, low, high, dense.loss),
        "arithmetic": dense.arithmetic,
    }


def curves_json(
    unit_ids: Sequence[str],
    criteria: Sequence[str],
    points: Iterable[PointFacts],
    reader: PointReader,
    remarks: Iterable[JSON] = (),
) -> list[JSON]:
    """One curve a unit and criterion, in network order, points by rising sparsity.

    `points` have to come sorted by level, and `fresh` (`PointReader`); curves without a point yet
    are there, empty.
    """
    curves: dict[tuple[str, str], list[PointFacts]] = {
        (unit, criterion): [] for unit in unit_ids for criterion in criteria
    }
    for point in points:
        curve = curves.get((point.unit, point.criterion))
        if curve is not None:
            curve.append(point)
    said = {(each["unit"], each["criterion"]): each["reason"] for each in remarks}
    return [curve_json(*key, found, reader, said.get(key)) for key, found in curves.items()]


def curve_json(
    unit: str,
    criterion: str,
    points: Sequence[PointFacts],
    reader: PointReader,
    remark: str | None,
) -> JSON:
    """Points as they were measured, where the knee is, and the rising curve that fits them."""
    # A search leaves most levels at their preview, which says too little to decide by.
    beyond = [point for point in points if point.whole or point.samples > PREVIEW]
    known = [
        (to_sparsity(point.level), drop)
        for point in beyond or points
        if (drop := point.estimated_drop) is not None
    ]
    knee = knee_of(known, reader.goals.tolerance)
    return {
        "unit": unit,
        "criterion": criterion,
        "points": [reader.json(point) for point in points],
        "knee": None
        if knee is None
        else {
            "sparsity": knee.sparsity,
            "drop": knee.drop.value,
            "low": knee.drop.low,
            "high": knee.drop.high,
        },
        "fit": fit_json(points, reader.goals.confidence),
        "remark": remark,
    }


def fit_json(points: Sequence[PointFacts], confidence: float) -> list[list[float]]:
    """`[[sparsity, drop], …]` of the isotonic fit, each point by the inverse of its variance.

    No point counts as known better than to half a sample.
    """
    z = normal_quantile(confidence)
    known = [(point, drop) for point in points if (drop := point.estimated_drop) is not None]
    weights = [
        max((drop.high - drop.low) / 2 / z, 0.5 / max(1, point.of or point.samples)) ** -2
        for point, drop in known
    ]
    fit = isotonic_fit([drop.value for _, drop in known], weights)
    return [[to_sparsity(point.level), value] for (point, _), value in zip(known, fit, strict=True)]
