"""One measured point as everybody shows it: the server, the events, and `prunescope analyse`.

A point that is not whole is an estimate for its split. Whatever of it can be computed from its sums
and the dense network's figures is computed here, so that it never rests on another program's word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from app.domain.adaptive import Drop, Strata, Sums, divergence_of, drop_of, loss_change_of
from app.domain.goals import Goals
from app.domain.levels import to_sparsity
from app.domain.metrics import METRICS, Kind
from app.domain.statistics import (
    DEFAULT_CONFIDENCE,
    normal_quantile,
    paired_difference_deviation,
    wilson,
)
from app.domain.stream_order import PREVIEW

JSON = dict[str, Any]
NOTHING: JSON = {"value": None, "low": None, "high": None}


class PointFacts(NamedTuple):
    """The columns of a point that are shown, in the order in which they are read.

    `sums` only where they were asked for.
    """

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
    of: int | None = None
    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None
    kl: float | None = None
    confidence: float | None = None
    remark: str | None = None
    correct: int | None = None
    sums: dict[str, Any] | None = None

    @property
    def whole(self) -> bool:
        return self.of is None or self.samples >= self.of

    @property
    def estimates(self) -> dict[str, JSON]:
        return estimates(self.metrics, self.accuracy, self.low, self.high, self.loss)

    @property
    def estimated_drop(self) -> Drop | None:
        if self.drop is None or self.drop_low is None or self.drop_high is None:
            return None
        return Drop(self.drop, self.drop_low, self.drop_high)


FACTS = tuple(name for name in PointFacts._fields if name != "sums")
"""The columns that are always read."""


@dataclass(frozen=True)
class Dense:
    """The dense network's figures on the split.

    `arithmetic`: where bfloat16 was asked for, what was computed in, and how far that is from
    float32: `{used, reason, samples, answers, differing, loss, loss_float32}`.
    """

    kind: Kind
    samples: int
    accuracy: float | None = None
    loss: float | None = None
    metrics: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    strata: Strata | None = None
    arithmetic: JSON | None = None

    def value(self, metric: str) -> float | None:
        return self.metrics.get(metric, NOTHING).get("value")


def estimates(
    stored: Mapping[str, Any] | None,
    accuracy: float | None = None,
    low: float | None = None,
    high: float | None = None,
    loss: float | None = None,
) -> dict[str, JSON]:
    """`metrics` of one evaluation: as stored; for rows of earlier versions, what they have.

    An analysis can have ten thousand points, so this is written for speed. Columns hold no NaN.
    """
    if stored:
        return {name: _clean(each) for name, each in stored.items()}
    found: dict[str, JSON] = {}
    if accuracy is not None:
        found["accuracy"] = {"value": accuracy, "low": low, "high": high}
    if loss is not None:
        found["loss"] = {"value": loss, "low": None, "high": None}
    return found


def _clean(each: object) -> JSON:
    given = cast("dict[str, Any]", each if isinstance(each, dict) else {})
    value, low, high = given.get("value"), given.get("low"), given.get("high")
    return {
        "value": value if type(value) is float and math.isfinite(value) else _number(value),
        "low": low if type(low) is float and math.isfinite(low) else _number(low),
        "high": high if type(high) is float and math.isfinite(high) else _number(high),
    }


def _number(value: Any) -> int | None:
    """Whole numbers come without a point; all else is nothing."""
    return value if type(value) is int else None


def estimated(
    dense: Dense, sums: Mapping[str, Any], confidence: float, method: str
) -> dict[str, Any]:
    """The columns of a point that is not whole, from its sums: estimates for the split.

    `drop` with its interval, `kl`, `loss`, `accuracy` with its interval, and `metrics`, of which
    all is null that sums say nothing about.
    """
    assert dense.strata is not None
    found = Sums.of(sums)
    drop = drop_of(dense.strata, found, confidence, method)
    metrics = {metric.name: dict(NOTHING) for metric in METRICS[dense.kind]}
    metrics["loss"] = _from(dense.loss, loss_change_of(dense.strata, found, confidence), 1.0)
    columns: dict[str, Any] = {"accuracy": None, "low": None, "high": None}
    if dense.kind == Kind.REGRESSION:
        metrics["mse"] = _from(dense.value("mse"), drop, variance_of(dense) or math.nan, 0.0)
        metrics["r2"] = _from(dense.value("r2"), drop, -1.0)
    elif dense.kind == Kind.LANGUAGE_MODELLING:
        metrics["perplexity"] = {
            name: None if value is None else _exp(value) for name, value in metrics["loss"].items()
        }
    else:
        metrics["accuracy"] = _from(dense.accuracy, drop, -1.0, 0.0, 1.0)
        names = {"accuracy": "value", "low": "low", "high": "high"}
        columns = {name: metrics["accuracy"][part] for name, part in names.items()}
    known = drop is not None and all(map(math.isfinite, (drop.value, drop.low, drop.high)))
    return columns | {
        "loss": metrics["loss"]["value"],
        "metrics": metrics,
        "drop": drop.value if drop is not None and known else None,
        "drop_low": drop.low if drop is not None and known else None,
        "drop_high": drop.high if drop is not None and known else None,
        "kl": _finite(divergence_of(dense.strata, found)),
        "confidence": confidence,
    }


def _from(
    start: float | None,
    drop: Drop | None,
    sign: float,
    lowest: float = -math.inf,
    highest: float = math.inf,
) -> JSON:
    """A metric that is `start + sign * drop`, with the drop's interval, within its bounds."""
    if start is None or drop is None:
        return dict(NOTHING)
    ends = sorted((start + sign * drop.low, start + sign * drop.high))
    value, low, high = (
        min(highest, max(lowest, each)) for each in (start + sign * drop.value, *ends)
    )
    if not (math.isfinite(value) and math.isfinite(low) and math.isfinite(high)):
        return dict(NOTHING)
    return {"value": value, "low": low, "high": high}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _exp(value: float) -> float | None:
    try:
        return math.exp(value)
    except OverflowError:
        return None


def variance_of(figures: Dense) -> float | None:
    """The variance of what a regression predicts: mse / (1 - R²) of any network on the split."""
    mse, r2 = figures.value("mse"), figures.value("r2")
    if mse is None or r2 is None or not r2 < 1 or mse <= 0:
        return None
    return mse / (1 - r2)


def whole_drop(dense: Dense, point: PointFacts, confidence: float) -> Drop | None:
    """The drop of a whole point, exact for its split, with its interval for the population.

    One answer a sample: that of the paired difference. Otherwise the interval is that of the
    point's own figure, the dense network's taken as it is.
    """
    if dense.kind == Kind.REGRESSION:
        return _error_drop(dense, point)
    if dense.kind == Kind.LANGUAGE_MODELLING:
        return _loss_drop(dense, point)
    if dense.accuracy is None or point.accuracy is None:
        return None
    value = dense.accuracy - point.accuracy
    if dense.kind == Kind.SINGLE_LABEL and point.lost is not None and point.gained is not None:
        deviation = paired_difference_deviation(point.lost, point.gained, point.samples)
        half = normal_quantile(confidence) * deviation
        return Drop(value, value - half, value + half)
    return _drop(value, point.high, point.low, dense.accuracy, -1.0)


def _error_drop(dense: Dense, point: PointFacts) -> Drop | None:
    start, own = dense.value("mse"), point.estimates.get("mse", NOTHING)
    spread = variance_of(dense)
    if spread is None:  # a network without error knows nothing of the spread; a worse one does
        spread = variance_of(Dense(dense.kind, point.samples, metrics=point.estimates))
    if start is None or own["value"] is None or spread is None:
        return None
    value = (own["value"] - start) / spread
    return _drop(value, own["low"], own["high"], start, 1.0, spread)


def _loss_drop(dense: Dense, point: PointFacts) -> Drop | None:
    if dense.loss is None or point.loss is None:
        return None
    own = point.estimates.get("loss", NOTHING)
    return _drop(point.loss - dense.loss, own["low"], own["high"], dense.loss, 1.0)


def _drop(
    value: float,
    first: float | None,
    second: float | None,
    start: float,
    sign: float,
    scale: float = 1.0,
) -> Drop:
    """With its ends from those of a figure; without an interval it is a point."""
    if first is None or second is None:
        return Drop(value, value, value)
    low, high = sign * (first - start) / scale, sign * (second - start) / scale
    return Drop(value, min(low, value), max(high, value))


@dataclass(frozen=True)
class PointReader:
    """Reads points as one analysis sees them: by its goals, and with intervals at its confidence.

    `dense` None: nothing is known of the intact network yet, so no drop is either.
    """

    goals: Goals
    dense: Dense | None

    def stale(self, point: PointFacts) -> bool:
        """Whether its interval was computed for somebody who asked for another one.

        A preview never is: it was taken before anything was known of strata.
        """
        part = not point.whole and point.samples > PREVIEW
        return part and point.confidence != self.goals.confidence

    def fresh(self, point: PointFacts) -> PointFacts:
        """The point with its drop, and all intervals as this analysis asked for them.

        A stale one has to come with its sums; without them it stays as it is.
        """
        if self.dense is None:
            return point
        if not point.whole:
            if point.sums is None or self.dense.strata is None or not self.stale(point):
                return point
            goals = self.goals
            return point._replace(
                **estimated(self.dense, point.sums, goals.confidence, goals.method)
            )
        confidence = self.goals.confidence
        if point.drop is not None and point.confidence == confidence:
            return point
        drop = whole_drop(self.dense, point, confidence)
        if drop is not None:
            point = point._replace(drop=drop.value, drop_low=drop.low, drop_high=drop.high)
        if (point.confidence or DEFAULT_CONFIDENCE) != confidence:
            point = self._widened(point)
        return point

    def _widened(self, point: PointFacts) -> PointFacts:
        """A whole point of one answer a sample, with its accuracy's interval at our confidence."""
        assert self.dense is not None
        if self.dense.kind != Kind.SINGLE_LABEL or point.correct is None:
            return point
        interval = wilson(point.correct, point.samples, self.goals.confidence)
        own = {"value": point.accuracy, "low": interval.low, "high": interval.high}
        metrics = {**point.metrics, "accuracy": own} if point.metrics else point.metrics
        return point._replace(low=interval.low, high=interval.high, metrics=metrics)

    def settled(self, point: PointFacts) -> bool:
        """Whether it is known as well as this analysis wants it."""
        return point.whole or self.goals.settles(point.unit, point.level, point.estimated_drop)

    def json(self, point: PointFacts) -> JSON:
        """One entry of a curve's `points`, of a point that is `fresh`."""
        whole = point.whole
        return {
            "sparsity": to_sparsity(point.level),
            "achieved": point.removed / point.size if point.size else 0.0,
            "accuracy": point.accuracy,
            "loss": _finite(point.loss),
            "low": point.low,
            "high": point.high,
            "samples": point.samples,
            "of": point.samples if point.of is None else point.of,
            "whole": whole,
            "interval": "population" if whole else "split",
            "settled": self.settled(point),
            "preview": not whole and point.samples <= PREVIEW,
            "drop": point.drop,
            "drop_low": point.drop_low,
            "drop_high": point.drop_high,
            "kl": point.kl,
            "flips": point.flips,
            "lost": point.lost,
            "gained": point.gained,
            "metrics": point.estimates,
            "remark": point.remark,
        }

    def told(self, point: PointFacts) -> JSON:
        """The same with its unit and criterion: what a `points` event carries."""
        return {"unit": point.unit, "criterion": point.criterion, **self.json(point)}
