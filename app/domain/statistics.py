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
    return wilson_share(correct / samples if samples else 0.0, samples, confidence)


def wilson_share(share: float, size: float, confidence: float = DEFAULT_CONFIDENCE) -> Interval:
    """Wilson's interval for a share of `size` samples, which need not be a whole number."""
    if size == 0:
        return Interval(0.0, 1.0)
    z = normal_quantile(confidence)
    denominator = 1 + z * z / size
    centre = (share + z * z / (2 * size)) / denominator
    half = z / denominator * math.sqrt(share * (1 - share) / size + z * z / (4 * size * size))
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
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
