"""Intervals for accuracies and for paired differences of accuracies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

DEFAULT_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


def normal_quantile(confidence: float) -> float:
    """Two-sided standard normal quantile, 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(correct: int, samples: int, confidence: float = DEFAULT_CONFIDENCE) -> Interval:
    """Wilson score interval for a proportion (Wilson 1927), without continuity correction.

    `samples` = 0 gives the whole range, because nothing is known.
    """
    if not 0 <= correct <= samples:
        raise ValueError(f"{correct} correct of {samples}")
    if samples == 0:
        return Interval(0.0, 1.0)
    z = normal_quantile(confidence)
    p = correct / samples
    denominator = 1 + z * z / samples
    centre = (p + z * z / (2 * samples)) / denominator
    half = z / denominator * math.sqrt(p * (1 - p) / samples + z * z / (4 * samples * samples))
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == samples else min(1.0, centre + half)
    return Interval(low, high)


def paired_difference_deviation(lost: int, gained: int, samples: int) -> float:
    """Standard deviation of the paired accuracy difference (gained - lost) / samples.

    `lost` counts samples that only the dense network gets right, `gained` those that only the
    pruned one does: the b and c of McNemar (1947). Agreeing samples carry no variance.
    """
    if samples == 0:
        return 0.0
    difference = (gained - lost) / samples
    return math.sqrt(max(0.0, (lost + gained) / samples - difference * difference) / samples)
