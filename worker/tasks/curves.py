"""Listening to a child that measures curves: each cell from ever more samples, until it is settled.

Whatever can be computed from the counts that a child tells is computed here, and counts that
contradict each other, or the dense network's, end the job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from app.domain.adaptive import Strata
from app.domain.goals import Goals
from app.domain.levels import LEVEL_SCALE, removed_count, to_sparsity
from app.domain.metrics import Kind
from app.domain.point_facts import Dense, PointFacts, estimated, whole_drop
from worker.tasks.outcomes import (
    OutcomeFacts,
    check_apart,
    check_classes,
    check_members,
    outcome_of,
)
from worker.tasks.reports import (
    BaselineSaid,
    Figures,
    PointSaid,
    PointsSaid,
    PreviewSaid,
    Progress,
    RemarkSaid,
    RemarksSaid,
    malformed,
    require,
    unexpected,
)

Cell = tuple[str, str, int]
"""Unit, criterion, level."""
PREVIEW_AT_MOST = 512
"""More samples than this no preview sees: a network of a large fixed batch takes a whole one."""
MAX_EXTRA = 64
"""More levels than this no refinement ever adds to a curve."""


@dataclass(frozen=True)
class Wanted:
    """What a child is asked for, on a split of `samples` samples.

    `sizes`: the weights of each unit. `every`: whether each cell has to be told (a search for knees
    leaves out most), but for those that are `known`; `extra`: how many levels of its own a child
    may add to each curve.
    """

    cells: Sequence[Cell]
    sizes: Mapping[str, int]
    samples: int
    goals: Goals
    every: bool = True
    extra: int = 0
    known: frozenset[Cell] = frozenset()


@dataclass(frozen=True)
class BaselineFound:
    """The dense network, checked. `answers`: how many of a sample are right or wrong; 0 if none."""

    figures: Figures
    dense: Dense
    outcome: OutcomeFacts | None
    answers: int


@dataclass(frozen=True)
class Measured:
    """One cell, checked. `outcome` only where the child is done with it."""

    cell: Cell
    facts: PointFacts
    settled: bool
    outcome: OutcomeFacts | None


class Listener(Protocol):
    """Is told only what has been checked."""

    def baseline(self, found: BaselineFound) -> None: ...

    def points(self, measured: list[Measured]) -> None: ...

    def remarks(self, said: list[RemarkSaid]) -> None: ...

    def progress(self, fraction: float, seconds: float | None, samples: int) -> None: ...


@dataclass
class CurveReader:
    """Checks what the recipe `analyse` says, and passes it on.

    `kind` is what is predicted, where an earlier run has found out. Raises ChildMalformed.
    """

    wanted: Wanted
    listener: Listener
    kind: str | None = None
    found: BaselineFound | None = None
    waiting: set[Cell] = field(default_factory=set)
    seen: dict[Cell, int] = field(default_factory=dict)
    settled: set[Cell] = field(default_factory=set)
    added: dict[tuple[str, str], set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.asked = set(self.wanted.cells)
        self.waiting = self.asked - self.wanted.known
        self.curves = {(unit, criterion) for unit, criterion, _ in self.wanted.cells}

    def hear(self, kind: str, body: Mapping[str, Any], folder: Path) -> None:
        if kind == "baseline":
            self._baseline(BaselineSaid.of(body))
        elif kind == "points":
            self._points(PointsSaid.of(body))
        elif kind == "preview":
            self._preview(PreviewSaid.of(body))
        elif kind == "remarks":
            self._remarks(RemarksSaid.of(body))
        elif kind == "progress":
            said = Progress.of(body)
            self.listener.progress(said.fraction, said.seconds, said.samples)
        else:
            raise unexpected(kind)

    def finish(self) -> None:
        """The recipe has ended: everything must have been said by now."""
        require(self.found is not None, "an end without the dense network's figures")
        if self.wanted.every:
            require(not self.waiting, f"an end with {len(self.waiting)} cells left out")

    def _baseline(self, said: BaselineSaid) -> None:
        require(self.found is None, "a second baseline")
        samples = self.wanted.samples
        said.check(samples, self.kind)
        whole = said.samples == samples and said.whole in (None, samples)
        require(whole, "a baseline of a part of the split")
        strata = None
        if said.strata is not None:
            said.strata.check(samples)
            strata = Strata.of(said.strata.model_dump())
            wrong = said.correct is not None and samples - said.correct == strata.sizes[0]
            require(wrong or not strata.apart, "other samples than the wrong ones apart")
        outcome, answers = outcome_of(said, samples, said.correct, None)
        require(said.kind != Kind.SINGLE_LABEL or answers in (0, 1), "answers of no sample")
        check_classes(said.by_class, said, samples)
        if outcome is not None:
            require(outcome.state is None or strata is not None, "samples of no strata")
            check_members(outcome.state, () if strata is None else strata.sizes)
        if strata is not None and strata.apart:
            require(said.kind == Kind.SINGLE_LABEL, "samples of several answers apart")
            check_apart(outcome, samples)
        arithmetic = None
        if said.arithmetic is not None:
            said.arithmetic.check(samples)
            arithmetic = said.arithmetic.model_dump()
        dense = Dense(
            said.kind, samples, said.accuracy, said.loss, said.metrics_json(), strata, arithmetic
        )
        self.found = BaselineFound(said, dense, outcome, answers)
        self.listener.baseline(self.found)

    def _remarks(self, said: RemarksSaid) -> None:
        for each in said.units:
            curve = (each.unit, each.criterion)
            require(curve in self.curves, "a remark on what was not asked for")
            told = any(cell[:2] == curve for cell in self.seen)
            require(not told, "no curve where there are points")
            self.asked = {cell for cell in self.asked if cell[:2] != curve}
            self.waiting &= self.asked
            self.curves.discard(curve)
        if said.units:
            self.listener.remarks(list(said.units))

    def _points(self, said: PointsSaid) -> None:
        found = self.found
        require(found is not None, "points before the baseline")
        assert found is not None
        measured = [self._point(point, found) for point in said.points]
        if measured:
            self.listener.points(measured)

    def _preview(self, said: PreviewSaid) -> None:
        """Points of the first samples, whose estimates rest on the dense network's on the same."""
        require(self.found is None, "a preview after the baseline")
        said.dense.check(PREVIEW_AT_MOST, self.kind)
        said.strata.check(self.wanted.samples)
        dense = Dense(
            said.dense.kind,
            said.dense.samples,
            said.dense.accuracy,
            said.dense.loss,
            said.dense.metrics_json(),
            Strata.of(said.strata.model_dump()),
        )
        for point in said.points:
            same = point.figures.samples == said.dense.samples
            require(same and not point.settled, "a preview of other samples")
        found = BaselineFound(said.dense, dense, None, 0)
        measured = [self._point(point, found) for point in said.points]
        # Their sums are of no stratum, so that nothing can be computed from them later.
        measured = [replace(each, facts=each.facts._replace(sums=None)) for each in measured]
        if measured:
            self.listener.points(measured)

    def _point(self, said: PointSaid, found: BaselineFound) -> Measured:
        cell = (said.unit, said.criterion, said.level)
        self._admit(cell)
        figures, samples = said.figures, self.wanted.samples
        whole = figures.samples == samples
        require(figures.whole in (None, samples), "a point of another split")
        size = self.wanted.sizes[said.unit]
        asked = removed_count(to_sparsity(said.level), size)
        removed = asked if said.removed is None else said.removed
        require(removed <= size, "more removed than there is")
        before = self.seen.get(cell, 0)
        settled = whole if said.settled is None else said.settled
        require(cell not in self.settled, "a cell that was settled, told again")
        require(
            figures.samples > before or (settled and figures.samples == before),
            "a cell told again from as few samples",
        )
        require(settled or not whole, "a whole cell that is not settled")
        self.seen[cell] = figures.samples
        if settled:
            self.settled.add(cell)
            self.waiting.discard(cell)
        else:
            require(said.outcome is None and said.state is None, "an outcome that is not final")
        facts = PointFacts(
            said.unit,
            said.criterion,
            said.level,
            size,
            removed,
            figures.samples,
            correct=figures.correct,
            of=samples,
            confidence=self.wanted.goals.confidence,
            remark=said.remark,
            metrics=figures.metrics_json(),
            **figures.paired(),
            accuracy=figures.accuracy,
            loss=figures.loss,
            low=figures.low,
            high=figures.high,
            kl=figures.kl,
        )
        facts = self._whole(said, facts, found) if whole else self._part(said, facts, found)
        outcome = None
        if settled and (said.outcome is not None or said.state is not None):
            outcome, _ = outcome_of(said, figures.samples, figures.correct, found.answers)
            check_classes(said.by_class, figures, figures.samples)
        return Measured(cell, facts, settled, outcome)

    def _admit(self, cell: Cell) -> None:
        """Raises ChildMalformed for a cell that may not be told."""
        if cell in self.asked or cell in self.seen:
            return
        unit, criterion, level = cell
        mine = (unit, criterion) in self.curves and 0 < level < LEVEL_SCALE
        added = self.added.setdefault((unit, criterion), set())
        require(
            mine and len(added) < min(self.wanted.extra, MAX_EXTRA),
            "a cell that was not asked for, or told twice",
        )
        added.add(level)

    def _whole(self, said: PointSaid, facts: PointFacts, found: BaselineFound) -> PointFacts:
        figures = said.figures
        figures.check(self.wanted.samples, found.figures.kind)
        figures.check_against(found.figures)
        require(said.sums is None, "sums of a whole point")
        drop = whole_drop(found.dense, facts, self.wanted.goals.confidence)
        if drop is None:
            return facts
        return facts._replace(drop=drop.value, drop_low=drop.low, drop_high=drop.high)

    def _part(self, said: PointSaid, facts: PointFacts, found: BaselineFound) -> PointFacts:
        figures, strata = said.figures, found.dense.strata
        figures.check_part(self.wanted.samples, found.figures.kind)
        if said.sums is None or strata is None:
            raise malformed("a part without its sums")
        said.sums.check(strata, figures)
        sums = said.sums.model_dump()
        goals = self.wanted.goals
        own = estimated(found.dense, sums, goals.confidence, goals.method)
        return facts._replace(**own, sums=sums)
