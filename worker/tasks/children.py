"""Several children that measure one analysis at once, each its own units."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.domain.errors import Stopped
from app.store.points import Cell
from app.store.tables import Model
from worker.context import JobContext
from worker.sandbox.walls import Walls
from worker.tasks.curves import BaselineFound, CurveReader, Measured, Wanted
from worker.tasks.reports import RemarkSaid

if TYPE_CHECKING:
    from worker.tasks.points_writer import PointWriter

RECIPE = "analyse"
LEAST_UNITS = 2
"""Fewer units than this are not worth a second child, which runs the dense network once more."""


class StreamChanged(Exception):
    """This machine stratifies the split otherwise than the one that began to measure it."""


@dataclass(frozen=True)
class Child:
    """What one child is told, what it may say, and how much of the work is its."""

    arguments: Mapping[str, Any]
    wanted: Wanted
    weight: float


def shares(cells: Sequence[Cell], model: Model, most: int) -> list[list[Cell]]:
    """The cells of the units dealt out to at most `most` children, alike in cost.

    A cell costs what the network does from its unit on, so that early units are dear; they are
    dealt dearest first, back and forth. All cells of a unit go to one child, in their order.
    """
    costs = suffix_costs(model)
    counts: dict[str, int] = {}
    for unit, _, _ in cells:
        counts[unit] = counts.get(unit, 0) + 1
    number = max(1, min(most, len(counts) // LEAST_UNITS))
    dearest = sorted(counts, key=lambda unit: -costs.get(unit, 1.0) * counts[unit])
    turns = [*range(number), *reversed(range(number))]
    owner = {unit: turns[index % len(turns)] for index, unit in enumerate(dearest)}
    dealt: list[list[Cell]] = [[] for _ in range(number)]
    for cell in cells:
        dealt[owner[cell[0]]].append(cell)
    return dealt


def suffix_costs(model: Model) -> dict[str, float]:
    """Multiplications from each unit to the end of the network, as far as its order tells."""
    costs: dict[str, float] = {}
    after = 1.0
    for unit in reversed((model.units or {}).get("weight", [])):
        after += unit.get("macs") or 0
        costs[unit["id"]] = after
    return costs


def run_children(
    context: JobContext,
    children: Sequence[Child],
    files: Mapping[str, Path],
    writer: PointWriter,
    kind: str | None,
) -> None:
    """Run all of them to their ends; the first that fails stops the others.

    Raises what that one raised: Stopped, ChildFailed, whatever writing raises. None is left.
    """
    failed = threading.Event()
    errors: list[BaseException] = []
    lock = threading.Lock()
    total = sum(child.weight for child in children) or 1.0
    walls: list[Walls | None] = [None]
    if context.crew is not None and len(children) > 1:
        walls = [*context.crew.walls(len(children))]

    def run(number: int, child: Child) -> None:
        listener = _Turn(writer, number, child.weight / total, failed)
        reader = CurveReader(child.wanted, listener, kind)
        try:
            with context.inside(
                RECIPE,
                child.arguments,
                files,
                reader.hear,
                walls=walls[number],
                should_stop=lambda: failed.is_set() or context.should_stop(),
            ):
                reader.finish()
        except BaseException as error:
            with lock:
                errors.append(error)
            failed.set()

    if len(children) == 1:
        run(0, children[0])
    else:
        threads = [
            threading.Thread(target=run, args=(number, child), name=f"analyse-{number}")
            for number, child in enumerate(children)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


@dataclass
class _Turn:
    """One child's way to the writer, which is closed once another child has failed."""

    writer: PointWriter
    number: int
    weight: float
    failed: threading.Event

    def baseline(self, found: BaselineFound) -> None:
        self._check()
        self.writer.baseline(found)

    def points(self, measured: list[Measured]) -> None:
        self._check()
        self.writer.points(measured)

    def remarks(self, said: list[RemarkSaid]) -> None:
        self._check()
        self.writer.remarks(said)

    def progress(self, fraction: float, seconds: float | None, samples: int) -> None:
        self._check()
        self.writer.progress(self.number, self.weight, fraction, seconds, samples)

    def _check(self) -> None:
        if self.failed.is_set():
            raise Stopped("Another part of the computation has ended.")
