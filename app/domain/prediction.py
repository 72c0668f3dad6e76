"""What a plan will do, predicted from stored curves: no network is run here.

The joint accuracy is predicted as if layers failed independently:
`baseline * product over units of min(1, accuracy_u(s_u) / baseline)`. A unit's apparent gain is
noise more often than not, so it never makes up for another unit's loss. The band adds the paired
variances of the units' drops; it knows nothing of interactions between layers, which is why a plan
is always measured before it is believed. `static/js/explore/prediction.js` computes the same.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.domain.levels import removed_count
from app.domain.sizes import packed_bytes
from app.domain.statistics import normal_quantile, paired_difference_deviation


@dataclass(frozen=True)
class CurvePoint:
    """One measured point: fractions, and the `deviation` of the paired drop."""

    sparsity: float
    accuracy: float
    deviation: float


@dataclass(frozen=True)
class UnitFacts:
    """What the cost of a unit depends on. `macs` per sample of the layer that holds the unit."""

    id: str
    size: int
    rows: int
    itemsize: int
    macs: int


@dataclass(frozen=True)
class PredictedPlan:
    accuracy: float
    low: float
    high: float
    sparsity: float
    parameters: int
    macs: int
    bytes: int


def curve_point(
    sparsity: float, accuracy: float, lost: int, gained: int, samples: int
) -> CurvePoint:
    return CurvePoint(sparsity, accuracy, paired_difference_deviation(lost, gained, samples))


def interpolate(
    points: Sequence[CurvePoint], baseline: float, sparsity: float
) -> tuple[float, float]:
    """Accuracy and deviation at `sparsity`, linear between measured points (ascending).

    Nothing removed is the baseline, exactly. Beyond the last point, the last point: it is the
    furthest thing known.
    """
    known = [CurvePoint(0.0, baseline, 0.0), *(p for p in points if p.sparsity > 0)]
    index = bisect_left([p.sparsity for p in known], sparsity)
    if index >= len(known):
        return known[-1].accuracy, known[-1].deviation
    if known[index].sparsity == sparsity or index == 0:
        return known[index].accuracy, known[index].deviation
    left, right = known[index - 1], known[index]
    share = (sparsity - left.sparsity) / (right.sparsity - left.sparsity)
    return (
        left.accuracy + share * (right.accuracy - left.accuracy),
        left.deviation + share * (right.deviation - left.deviation),
    )


def predict_accuracy(
    curves: Mapping[str, Sequence[CurvePoint]],
    baseline: float,
    sparsities: Mapping[str, float],
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """`(accuracy, low, high)` of the joint plan. Units without a curve are taken as harmless."""
    if baseline <= 0:
        return 0.0, 0.0, 0.0
    kept = 1.0
    variance = 0.0
    for unit, sparsity in sparsities.items():
        points = curves.get(unit)
        if not points or sparsity <= 0:
            continue
        accuracy, deviation = interpolate(points, baseline, sparsity)
        kept *= min(1.0, accuracy / baseline)
        variance += (deviation / baseline) ** 2
    predicted = baseline * kept
    half = normal_quantile(confidence) * baseline * math.sqrt(variance)
    return predicted, max(0.0, predicted - half), min(1.0, predicted + half)


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
