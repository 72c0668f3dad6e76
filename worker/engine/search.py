"""Which cells to measure next: all of a grid, those around a threshold, or one knee a unit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from app.domain.adaptive import Strata, drop_of
from app.domain.levels import LEVEL_SCALE
from worker.engine.cell_run import CellRun
from worker.engine.sensitivity import Cell

MakeRun = Callable[[Cell], CellRun]
Curve = tuple[str, str]
"""Unit and criterion."""


class Search(Protocol):
    """Decides by what has been seen; knows nothing of networks."""

    def runs(self) -> Sequence[CellRun]:
        """All runs it may ask for, in the order in which people want to see them."""
        ...

    def active(self) -> list[CellRun]:
        """Those to be measured further now; none when it is done."""
        ...

    def settled(self, runs: Sequence[CellRun]) -> None:
        """Is told which of them have reached their goal."""
        ...

    def expected(self) -> list[CellRun]:
        """Those that will be measured further, as far as can be told."""
        ...


class GridSearch:
    """Every cell until it reaches its goal."""

    def __init__(self, runs: Iterable[CellRun]) -> None:
        self._runs = list(runs)

    def runs(self) -> Sequence[CellRun]:
        return self._runs

    def active(self) -> list[CellRun]:
        return [run for run in self._runs if not run.settled]

    def settled(self, runs: Sequence[CellRun]) -> None:
        pass

    def expected(self) -> list[CellRun]:
        return self.active()


class RefiningSearch(GridSearch):
    """The grid, then more levels where curves cross the tolerated drop, `refine` of them for each.

    Each halves the step between the last level below the tolerance, counted from the dense
    network's end, and the first above it: the first crossing, so that no cliff is stepped over.
    `make` gives the run of a new cell.
    """

    def __init__(
        self,
        runs: Iterable[CellRun],
        strata: Callable[[], Strata],
        tolerance: float,
        refine: Mapping[Curve, int],
        make: MakeRun,
    ) -> None:
        super().__init__(runs)
        self._strata = strata
        self._tolerance = tolerance
        self._make = make
        self._left = {key: refine.get(key, 0) for key in curves(self._runs)}

    def active(self) -> list[CellRun]:
        found = super().active()
        return found or self._refined()

    def _refined(self) -> list[CellRun]:
        fresh: list[CellRun] = []
        for key, runs in curves(self._runs).items():
            if self._left[key] > 0:
                self._left[key] -= 1
                level = self._between(runs)
                if level is not None:
                    fresh.append(self._make(Cell(*key, level)))
        self._runs += fresh
        return fresh

    def _between(self, runs: Sequence[CellRun]) -> int | None:
        below: CellRun | None = None
        for run in runs:
            drop = drop_of(self._strata(), run.sums)
            if drop is None:
                return None
            if drop.value > self._tolerance:
                return middle_level(below, run)
            below = run
        return None


@dataclass
class _Bracket:
    """Where the knee of one curve is: above run `low` (-1: none), below run `high`."""

    runs: list[CellRun]
    low: int = -1
    high: int = 0
    probe: int | None = None
    left: int = 0


class KneeSearch:
    """For each curve the largest level whose drop is within the tolerance, by bisection.

    The first guess comes from the previews. Each probe is measured until it is clear on which side
    of the tolerance its drop is, or known to the goal's width. Bisection trusts that curves fall;
    so once a knee is found, every lower level whose drop looks beyond the tolerance is probed too,
    and the knee moves below it if it is. Then, as in `RefiningSearch`, `refine` more levels for
    each curve halve the step above it.
    """

    def __init__(
        self,
        runs: Iterable[CellRun],
        strata: Callable[[], Strata],
        tolerance: float,
        refine: Mapping[Curve, int] | None = None,
        make: MakeRun | None = None,
    ) -> None:
        self._runs = list(runs)
        self._strata = strata
        self._tolerance = tolerance
        self._make = make
        for run in self._runs:
            run.goal = replace(run.goal, tolerance=tolerance)
        self._brackets = [
            _Bracket(runs, high=len(runs), left=(refine or {}).get(key, 0))
            for key, runs in curves(self._runs).items()
        ]
        self._started = False

    def runs(self) -> Sequence[CellRun]:
        return self._runs

    def active(self) -> list[CellRun]:
        if not self._started:
            self._started = True
            for bracket in self._brackets:
                self._next(bracket, self._guess(bracket))
        return [b.runs[b.probe] for b in self._brackets if b.probe is not None]

    def settled(self, runs: Sequence[CellRun]) -> None:
        known = {id(run) for run in runs}
        for bracket in self._brackets:
            if bracket.probe is not None and id(bracket.runs[bracket.probe]) in known:
                self._note(bracket, bracket.probe)
                self._next(bracket)

    def expected(self) -> list[CellRun]:
        waiting = []
        for bracket in self._brackets:
            if bracket.probe is not None:
                waiting.append(bracket.runs[bracket.probe])
                left = bracket.runs[bracket.low + 1 : bracket.high]
                waiting += [run for run in left[:: max(1, len(left) // 2)] if not run.settled]
        return waiting

    def _note(self, bracket: _Bracket, at: int) -> None:
        if self._fails(bracket.runs[at]):
            bracket.high = min(bracket.high, at)
            if bracket.low >= at:
                # Below a cliff only what was probed itself is known to be within.
                known = (low for low in range(at) if self._passes(bracket.runs[low]))
                bracket.low = max(known, default=-1)
        else:
            bracket.low = max(bracket.low, at)

    def _next(self, bracket: _Bracket, guess: int | None = None) -> None:
        """Choose the probe; what is settled already costs nothing."""
        bracket.probe = None
        while True:
            if bracket.high - bracket.low <= 1:
                at = self._suspect(bracket)
                if at is None and self._refined(bracket):
                    continue
                if at is None:
                    return
            else:
                at = guess if guess is not None else (bracket.low + bracket.high) // 2
                at = min(max(at, bracket.low + 1), bracket.high - 1)
                guess = None
            if not bracket.runs[at].settled:
                bracket.probe = at
                return
            self._note(bracket, at)

    def _refined(self, bracket: _Bracket) -> bool:
        """Put a new level between the knee and what is beyond it; whether there is room for one."""
        if self._make is None or bracket.left <= 0 or bracket.high >= len(bracket.runs):
            return False
        beyond = bracket.runs[bracket.high]
        level = middle_level(bracket.runs[bracket.low] if bracket.low >= 0 else None, beyond)
        if level is None:
            return False
        bracket.left -= 1
        run = self._make(Cell(beyond.unit, beyond.criterion, level))
        run.goal = replace(run.goal, tolerance=self._tolerance)
        bracket.runs.insert(bracket.high, run)
        bracket.high += 1
        self._runs.append(run)
        return True

    def _suspect(self, bracket: _Bracket) -> int | None:
        """A level below the knee that looks too bad to be below it, and was not probed yet."""
        for at in range(bracket.low):
            run = bracket.runs[at]
            drop = drop_of(self._strata(), run.sums, run.goal.confidence)
            if drop is not None and not run.settled and drop.low > self._tolerance:
                return at
        return None

    def _fails(self, run: CellRun) -> bool:
        drop = drop_of(self._strata(), run.sums, run.goal.confidence, run.goal.method)
        return drop is None or drop.value > self._tolerance

    def _passes(self, run: CellRun) -> bool:
        return run.settled and not self._fails(run)

    def _guess(self, bracket: _Bracket) -> int:
        """The largest level that looks to be within; the middle where there were no previews."""
        within = -1
        for at, run in enumerate(bracket.runs):
            if run.removed == 0:
                within = at
            elif run.seen == 0:
                return len(bracket.runs) // 2
            elif not self._fails(run):
                within = at
        return within


def middle_level(below: CellRun | None, above: CellRun) -> int | None:
    """The level half-way between two runs (None: the dense network); None where nothing is between.

    Without a whole entry between them there is nothing to find out.
    """
    low, removed = (below.cells[0].level, below.removed) if below is not None else (0, 0)
    level = above.cells[0].level
    step = LEVEL_SCALE / max(1, above.size)
    worth = above.removed - removed > 1 and level - low > max(2.0, step)
    return (low + level) // 2 if worth else None


def curves(runs: Iterable[CellRun]) -> dict[Curve, list[CellRun]]:
    """Runs by unit and criterion, by rising number of entries removed."""
    found: dict[Curve, list[CellRun]] = {}
    for run in runs:
        found.setdefault((run.unit, run.criterion), []).append(run)
    for some in found.values():
        some.sort(key=lambda run: run.removed)
    return found
