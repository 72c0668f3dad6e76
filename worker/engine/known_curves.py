"""What a study has found so far: points and curves, in the forms in which people want them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.curve_json import curves_json, dense_json, judged_by
from app.domain.curves_csv import curves_csv
from app.domain.goals import Goals
from app.domain.metrics import METRICS
from app.domain.point_facts import Dense, PointFacts, PointReader

JSON = dict[str, Any]
Key = tuple[str, str, int]
"""Unit, criterion, level."""


@dataclass(frozen=True)
class Point:
    """One unit pruned alone to one sparsity by one criterion, as far as it is known.

    Sparsities, accuracies and shares are fractions from 0 to 1. `achieved` is the sparsity after
    rounding to whole entries. `samples` of `of` were looked at: with all of them (`whole`) figures
    are exact and intervals are for the population; with fewer they are estimates for the whole
    split, and so are their intervals. `drop` is the dense network's score minus this one's.
    `metrics` has `{"value", "low", "high"}` by name. `settled`: as sharp as was asked for.
    """

    unit: str
    criterion: str
    sparsity: float
    achieved: float
    accuracy: float | None
    loss: float | None
    low: float | None
    high: float | None
    samples: int
    of: int
    whole: bool
    interval: str
    settled: bool
    preview: bool
    drop: float | None
    drop_low: float | None
    drop_high: float | None
    kl: float | None
    flips: int | None
    lost: int | None
    gained: int | None
    metrics: Mapping[str, Mapping[str, float | None]]
    remark: str | None = None


@dataclass
class KnownCurves:
    """The latest of every point of some units and criteria.

    `dense` and the `interval` of its accuracy (`low`, `high`) are there before any point is.
    """

    units: Sequence[str]
    criteria: Sequence[str]
    known: dict[Key, PointFacts] = field(default_factory=dict)
    refused: dict[tuple[str, str], str] = field(default_factory=dict)
    dense: Dense | None = None
    interval: Mapping[str, float | None] = field(default_factory=dict)

    def add(self, facts: PointFacts) -> Key:
        key = (facts.unit, facts.criterion, facts.level)
        self.known[key] = facts
        return key

    def point(self, key: Key, goals: Goals) -> Point:
        reader = PointReader(goals, self.dense)
        return Point(**reader.told(reader.fresh(self.known[key])))

    def remarks(self) -> list[JSON]:
        return [
            {"unit": unit, "criterion": criterion, "reason": reason}
            for (unit, criterion), reason in self.refused.items()
        ]

    def curves(self, goals: Goals) -> list[JSON]:
        """By unit in network order and criterion; points by rising sparsity."""
        reader = PointReader(goals, self.dense)
        facts = sorted(self.known.values(), key=lambda each: each.level)
        points = [reader.fresh(each) for each in facts]
        return curves_json(self.units, self.criteria, points, reader, self.remarks())

    def points(self, goals: Goals) -> list[Point]:
        return [
            Point(unit=curve["unit"], criterion=curve["criterion"], **point)
            for curve in self.curves(goals)
            for point in curve["points"]
        ]

    def baseline(self, dense: Dense) -> JSON:
        return dense_json(dense, self.interval["low"], self.interval["high"])

    def csv(self, dense: Dense, goals: Goals) -> str:
        curves = self.curves(goals)
        rows = [(c["unit"], c["criterion"], point) for c in curves for point in c["points"]]
        return curves_csv(dense.kind, rows)

    def rows(self, dense: Dense, goals: Goals) -> list[JSON]:
        """One flat dictionary a point, every metric with its interval in columns of its own."""
        named = [m.name for m in METRICS[dense.kind] if m.name not in ("accuracy", "loss")]
        parts = (("", "value"), ("_low", "low"), ("_high", "high"))
        further = [(name + end, name, part) for name in named for end, part in parts]
        return [
            {
                "unit": curve["unit"],
                "criterion": curve["criterion"],
                **{name: value for name, value in point.items() if name != "metrics"},
                **{name: point["metrics"].get(of, {}).get(part) for name, of, part in further},
            }
            for curve in self.curves(goals)
            for point in curve["points"]
        ]

    def document(self, dense: Dense, goals: Goals) -> JSON:
        """What `GET /api/analyses/{id}` says of figures."""
        return {
            "criteria": list(self.criteria),
            "evaluation": dict(goals.evaluation),
            "confidence": goals.confidence,
            **judged_by(dense.kind),
            "baseline": self.baseline(dense),
            "remarks": self.remarks(),
            "curves": self.curves(goals),
        }
