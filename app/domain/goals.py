"""How an analysis is to be evaluated, and how much of each cell has to be measured for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.domain.adaptive import WHOLE_BELOW, Drop, Goal
from app.domain.levels import to_level

MODES = ("adaptive", "exact", "knee")
METHODS = ("looks", "sequence")
PRECISIONS = ("float32", "bfloat16")
DEFAULT_EVALUATION: Mapping[str, Any] = {
    "mode": "adaptive",
    "half_width": 0.01,
    "relative": 0.1,
    "confidence": 0.95,
    "tolerance": 0.01,
    "method": "looks",
    "precision": "float32",
    "refine": 0,
}


def evaluation_of(stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """A stored or requested evaluation with all its fields."""
    said = {name: value for name, value in (stored or {}).items() if value is not None}
    return {**DEFAULT_EVALUATION, **said}


@dataclass(frozen=True)
class Sharpening:
    """Part of an analysis that somebody wants sharper: some units, some levels, how sharp.

    `units` None for all; `lowest` and `highest` are levels, both in it. `half_width` None asks for
    all samples.
    """

    units: frozenset[str] | None
    lowest: int
    highest: int
    half_width: float | None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Sharpening:
        units, span = said.get("units"), said.get("sparsities")
        lowest, highest = (0.0, 1.0) if span is None else span
        return cls(
            None if units is None else frozenset(units),
            to_level(lowest),
            to_level(highest),
            None if said.get("exact") else said["half_width"],
        )

    def covers(self, unit: str, level: int) -> bool:
        within = self.units is None or unit in self.units
        return within and self.lowest <= level <= self.highest


@dataclass(frozen=True)
class Goals:
    """What each cell of an analysis is measured for. `samples` is the size of the split."""

    evaluation: Mapping[str, Any]
    sharpenings: Sequence[Sharpening] = ()
    samples: int | None = None

    @classmethod
    def of(
        cls,
        evaluation: Mapping[str, Any] | None,
        sharpenings: Iterable[Mapping[str, Any]] | None = None,
        samples: int | None = None,
    ) -> Goals:
        listed = tuple(Sharpening.of(each) for each in sharpenings or ())
        return cls(evaluation_of(evaluation), listed, samples)

    @property
    def mode(self) -> str:
        return str(self.evaluation["mode"])

    @property
    def tolerance(self) -> float:
        return float(self.evaluation["tolerance"])

    @property
    def confidence(self) -> float:
        return float(self.evaluation["confidence"])

    @property
    def method(self) -> str:
        return str(self.evaluation["method"])

    @cached_property
    def base(self) -> Goal:
        """What every cell is measured for."""
        small = self.samples is not None and self.samples <= WHOLE_BELOW
        return Goal(
            half_width=float(self.evaluation["half_width"]),
            relative=float(self.evaluation["relative"]),
            confidence=self.confidence,
            method=self.method,
            whole=self.mode == "exact" or small,
            tolerance=self.tolerance if self.mode == "knee" else None,
        )

    def sharpened(self, unit: str, level: int) -> Goal | None:
        """The sharpest that was asked of this cell later; None when nobody did.

        A half-width that somebody asks for is meant as it stands: without a share of the drop.
        """
        asked = [each for each in self.sharpenings if each.covers(unit, level)]
        if not asked:
            return None
        widths = [each.half_width for each in asked if each.half_width is not None]
        base = self.base
        return Goal(
            half_width=min(widths, default=base.half_width),
            relative=0.0,
            confidence=base.confidence,
            method=base.method,
            whole=base.whole or len(widths) < len(asked),
        )

    def of_cell(self, unit: str, level: int) -> Goal:
        """What this cell has to be measured for in all."""
        return self.sharpened(unit, level) or self.base

    def settles(self, unit: str, level: int, drop: Drop | None) -> bool:
        """Whether a cell that is not whole is known well enough by this estimate."""
        goal = self.of_cell(unit, level)
        return drop is not None and not goal.whole and drop.reaches(goal)
