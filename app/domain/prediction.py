"""What a plan will do, predicted from stored curves: no network is run here.

Layers are predicted as if they failed independently. Fractions of which more is better multiply
what each unit keeps: `baseline * product over units of min(1, value_u(s_u) / baseline)`. All other
metrics add up what each unit costs: `baseline ± sum over units of max(0, loss_u(s_u))`. A unit's
apparent gain is noise more often than not, so it never makes up for another unit's loss. The band
adds the variances of the units; it knows nothing of interactions between layers, which is why a
plan is always measured before it is believed. `static/js/explore/prediction.js` computes the same.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.domain.levels import removed_count
from app.domain.metrics import ACCURACY, Metric
from app.domain.sizes import packed_bytes
from app.domain.statistics import normal_quantile, paired_difference_deviation


@dataclass(frozen=True)
class CurvePoint:
    """One measured point: a metric's value, and the `deviation` of its difference from dense."""

    sparsity: float
    value: float
    deviation: float


@dataclass(frozen=True)
class UnitFacts:
    """What the cost of a unit depends on. `macs` per sample of the layer that holds the unit."""

    id: str
    size: int
    rows: int
    itemsize: int
    macs: int


def curve_point(sparsity: float, value: float, lost: int, gained: int, samples: int) -> CurvePoint:
    """A point of the accuracy, whose samples are paired with the dense network's."""
    return CurvePoint(sparsity, value, paired_difference_deviation(lost, gained, samples))


def unpaired_point(
    sparsity: float, value: float, low: float | None, high: float | None, confidence: float = 0.95
) -> CurvePoint:
    """A point of a metric that is known by its interval; without one, its deviation is 0."""
    half = 0.0 if low is None or high is None else max(0.0, (high - low) / 2)
    return CurvePoint(sparsity, value, half / normal_quantile(confidence))


def interpolate(
    points: Sequence[CurvePoint], baseline: float, sparsity: float
) -> tuple[float, float]:
    """Value and deviation at `sparsity`, linear between measured points (ascending).

    Nothing removed is the baseline, exactly. Beyond the last point, the last point: it is the
    furthest thing known.
    """
    known = [CurvePoint(0.0, baseline, 0.0), *(p for p in points if p.sparsity > 0)]
    index = bisect_left([p.sparsity for p in known], sparsity)
    if index >= len(known):
        return known[-1].value, known[-1].deviation
    if known[index].sparsity == sparsity or index == 0:
        return known[index].value, known[index].deviation
    left, right = known[index - 1], known[index]
    share = (sparsity - left.sparsity) / (right.sparsity - left.sparsity)
    return (
        left.value + share * (right.value - left.value),
        left.deviation + share * (right.deviation - left.deviation),
    )


def multiplies(metric: Metric) -> bool:
    """Whether the fractions that units keep of this metric are multiplied."""
    return metric.fraction and metric.higher_is_better


def predict_metric(
    curves: Mapping[str, Sequence[CurvePoint]],
    baseline: float,
    sparsities: Mapping[str, float],
    metric: Metric,
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """`(value, low, high)` of the joint plan. Units without a curve are taken as harmless."""
    if multiplies(metric) and baseline <= 0:
        return 0.0, 0.0, 0.0
    sign = 1.0 if metric.higher_is_better else -1.0
    kept = 1.0
    lost = 0.0
    variance = 0.0
    for unit, sparsity in sparsities.items():
        points = curves.get(unit)
        if not points or sparsity <= 0:
            continue
        value, deviation = interpolate(points, baseline, sparsity)
        if multiplies(metric):
            kept *= min(1.0, value / baseline)
        else:
            lost += max(0.0, sign * (baseline - value))
        variance += deviation**2
    predicted = baseline * kept if multiplies(metric) else baseline - sign * lost
    half = normal_quantile(confidence) * math.sqrt(variance)
    low, high = predicted - half, predicted + half
    if metric.fraction:
        return predicted, max(0.0, low), min(1.0, high)
    # What counts down to nothing (errors, losses) is never below it.
    return predicted, low if metric.higher_is_better else max(min(0.0, predicted), low), high


def predict_accuracy(
    curves: Mapping[str, Sequence[CurvePoint]],
    baseline: float,
    sparsities: Mapping[str, float],
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """`(accuracy, low, high)` of the joint plan."""
    return predict_metric(curves, baseline, sparsities, ACCURACY, confidence)


def plan_costs(
    units: Iterable[UnitFacts],
    sparsities: Mapping[str, float],
    *,
    total_parameters: int,
    total_macs: int,
    total_bytes: int,
) -> tuple[float, int, int, int]:
    """`(sparsity over the prunable weights, parameters kept, macs, packed bytes)` of a plan.

    MACs count multiplications by a non-zero weight; zeros do not make dense kernels faster.
    """
    removed_total = size_total = 0
    macs = float(total_macs)
    stored = total_bytes
    for unit in units:
        removed = removed_count(sparsities.get(unit.id, 0.0), unit.size)
        removed_total += removed
        size_total += unit.size
        if unit.size:
            macs -= unit.macs * removed / unit.size
            stored -= unit.size * unit.itemsize - packed_bytes(
                unit.size, unit.size - removed, unit.rows, unit.itemsize
            )
    sparsity = removed_total / size_total if size_total else 0.0
    return sparsity, total_parameters - removed_total, round(macs), stored
