"""Figures of a network with the intervals that samples drawn at random allow.

An interval is about the population that the samples of a split come from. Where several answers
belong to one sample (positions, labels, tokens), samples are the independent draws, not answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from app.domain.statistics import (
    DEFAULT_CONFIDENCE,
    Interval,
    normal_quantile,
    wilson,
    wilson_share,
)


class Estimate(Protocol):
    """`value` is None where the figure is undefined; an interval None where none is honest."""

    @property
    def value(self) -> float | None: ...

    def interval(self, confidence: float = DEFAULT_CONFIDENCE) -> Interval | None: ...


@dataclass(frozen=True)
class Known:
    """A figure without an interval."""

    value: float | None

    def interval(self, confidence: float = DEFAULT_CONFIDENCE) -> Interval | None:
        return None


UNDEFINED = Known(None)


@dataclass(frozen=True)
class Share:
    """`hits` of `samples` independent samples; Wilson's interval."""

    hits: int
    samples: int

    @property
    def value(self) -> float:
        return self.hits / self.samples if self.samples else 0.0

    def interval(self, confidence: float = DEFAULT_CONFIDENCE) -> Interval:
        return wilson(self.hits, self.samples, confidence)


@dataclass(frozen=True)
class ClusteredShare:
    """`hits` of `answers`, several a sample.

    `error` is the standard error of the share by the ratio estimator (`ratio_error`). The interval
    is Wilson's at the effective number of answers, share (1 - share) / error², which Korn and
    Graubard (1998) propose for surveys drawn in clusters. It is never taken as more than `answers`;
    where all answers are right or all wrong the error says nothing, and the number of samples is
    taken, as if the answers of one sample were one.
    """

    hits: int
    answers: int
    samples: int
    error: float | None

    @property
    def value(self) -> float | None:
        return self.hits / self.answers if self.answers else None

    def interval(self, confidence: float = DEFAULT_CONFIDENCE) -> Interval | None:
        share = self.value
        if share is None or self.error is None:
            return None
        spread = share * (1 - share)
        size = spread / (self.error * self.error) if spread and self.error else float(self.samples)
        return wilson_share(share, min(size, self.answers), confidence)


@dataclass(frozen=True)
class Mean:
    """A mean with its standard error; normal interval, cut at `lowest`."""

    value: float | None
    error: float | None
    lowest: float = -math.inf

    def interval(self, confidence: float = DEFAULT_CONFIDENCE) -> Interval | None:
        if self.value is None or self.error is None:
            return None
        half = normal_quantile(confidence) * self.error
        return Interval(max(self.lowest, self.value - half), self.value + half)


@dataclass(frozen=True)
class Exponential:
    """exp of a mean, such as a perplexity; the ends of the interval are exp of the mean's."""

    mean: Mean

    @property
    def value(self) -> float | None:
        return None if self.mean.value is None else _exp(self.mean.value)

    def interval(self, confidence: float = DEFAULT_CONFIDENCE) -> Interval | None:
        found = self.mean.interval(confidence)
        if found is None:
            return None
        low, high = _exp(found.low), _exp(found.high)
        return None if low is None or high is None else Interval(low, high)


def mean_error(total: float, squares: float, samples: int) -> float | None:
    """Standard error of a mean from the sum and the sum of squares of independent samples.

    None for fewer than two samples and for sums that are not finite.
    """
    if samples < 2:
        return None
    variance = (squares - total * total / samples) / (samples - 1)
    if not math.isfinite(variance):
        return None
    return math.sqrt(max(0.0, variance) / samples)


def ratio_error(
    top: float, bottom: float, top2: float, cross: float, bottom2: float, samples: int
) -> float | None:
    """Standard error of sum(y) / sum(m) over independent samples with y and m each.

    The linearised variance of the ratio estimator (Cochran, Sampling Techniques, 1977, 6.4):
    residuals y - ratio m in the place of samples. `top`, `bottom` are the sums of y and m, `top2`,
    `cross`, `bottom2` those of y², y m and m². None for fewer than two samples or no answers.
    """
    if samples < 2 or bottom <= 0:
        return None
    ratio = top / bottom
    residuals = top2 - 2 * ratio * cross + ratio * ratio * bottom2
    if not math.isfinite(residuals):
        return None
    return math.sqrt(max(0.0, residuals) * samples / (samples - 1)) / bottom


def figures(
    estimates: Mapping[str, Estimate], confidence: float = DEFAULT_CONFIDENCE
) -> dict[str, dict[str, Any]]:
    """`{name: {"value", "low", "high"}}`, None where undefined, as JSON takes it."""
    found: dict[str, dict[str, Any]] = {}
    for name, estimate in estimates.items():
        value = estimate.value
        if value is not None and not math.isfinite(value):
            value = None
        interval = None if value is None else estimate.interval(confidence)
        low, high = (None, None) if interval is None else (interval.low, interval.high)
        found[name] = {"value": value, "low": low, "high": high}
    return found


def _exp(value: float) -> float | None:
    try:
        return math.exp(value)
    except OverflowError:
        return None
