"""Listening to a child that measures curves: in any order, but each cell once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from worker.tasks.reports import Figures, PointsSaid, Progress, require, unexpected

Cell = tuple[str, str, int]
"""Unit, criterion, level."""


class Listener(Protocol):
    """Is told only what has been checked."""

    def baseline(self, figures: Figures) -> None: ...

    def points(self, measured: list[tuple[Cell, Figures]]) -> None: ...

    def progress(self, fraction: float, seconds: float | None) -> None: ...


def as_argument(cells: Iterable[Cell]) -> list[tuple[str, str, list[int]]]:
    """`cells` as the recipe `analyse` takes them."""
    levels: dict[tuple[str, str], list[int]] = {}
    for unit, criterion, level in cells:
        levels.setdefault((unit, criterion), []).append(level)
    return [(unit, criterion, listed) for (unit, criterion), listed in levels.items()]


class CurveReader:
    """Checks what the recipe `analyse` says, and passes it on.

    `cells` are what it was asked for on a split of `size` samples; `kind` is what is predicted,
    where an earlier run has found out. Raises ChildMalformed.
    """

    def __init__(
        self, cells: Iterable[Cell], size: int, listener: Listener, *, kind: str | None = None
    ) -> None:
        self.waiting = set(cells)
        self.size = size
        self.listener = listener
        self.kind = kind
        self.dense: Figures | None = None

    def hear(self, kind: str, body: Mapping[str, Any], folder: Path) -> None:
        if kind == "baseline":
            self._baseline(Figures.of(body))
        elif kind == "points":
            self._points(PointsSaid.of(body))
        elif kind == "progress":
            said = Progress.of(body)
            self.listener.progress(said.fraction, said.seconds)
        else:
            raise unexpected(kind)

    def finish(self) -> None:
        """The recipe has ended: everything must have been said by now."""
        require(self.dense is not None, "an end without the dense network's figures")
        require(not self.waiting, f"an end with {len(self.waiting)} cells left out")

    def _baseline(self, figures: Figures) -> None:
        require(self.dense is None, "a second baseline")
        figures.check(self.size, self.kind)
        self.dense = figures
        self.listener.baseline(figures)

    def _points(self, said: PointsSaid) -> None:
        dense = self.dense
        require(dense is not None, "points before the baseline")
        assert dense is not None
        measured: list[tuple[Cell, Figures]] = []
        for point in said.points:
            cell = (point.unit, point.criterion, point.level)
            require(cell in self.waiting, "a cell that was not asked for, or told twice")
            self.waiting.discard(cell)
            point.figures.check(self.size, dense.kind)
            point.figures.check_against(dense)
            measured.append((cell, point.figures))
        if measured:
            self.listener.points(measured)
