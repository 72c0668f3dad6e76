"""The children of `prunescope analyse`, each with its share of the units, and what they find."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.domain.point_facts import PointFacts
from worker.progress_bar import ProgressBar
from worker.sandbox.walls import Walls
from worker.tasks.curves import BaselineFound, Cell, CurveReader, Measured, Wanted
from worker.tasks.points_writer import same_stream
from worker.tasks.reports import RemarkSaid, require

WAIT_SECONDS = 0.2


@dataclass
class Collector:
    """Keeps the latest that is known of each cell, from all children, and tells the bar.

    `levels` are those that were asked of every curve.
    """

    bar: ProgressBar
    levels: Sequence[int]
    dense: BaselineFound | None = None
    known: dict[Cell, PointFacts] = field(default_factory=dict)
    settled: set[Cell] = field(default_factory=set)
    said: list[RemarkSaid] = field(default_factory=list)
    heard: dict[int, tuple[float, float | None, int]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def baseline(self, found: BaselineFound) -> None:
        with self.lock:
            if self.dense is None:
                self.dense = found
                return
            same = self.dense.dense.strata == found.dense.strata
            same = same and same_stream(self.dense.outcome, found.outcome)
            require(same, "two networks where there is one")

    def points(self, measured: list[Measured]) -> None:
        with self.lock:
            for each in measured:
                if each.cell not in self.known and each.cell[2] not in self.levels:
                    self.bar.total += 1
                self.known[each.cell] = each.facts
                if each.settled:
                    self.settled.add(each.cell)
            self.bar.count(len(self.known), len(self.settled))

    def remarks(self, said: list[RemarkSaid]) -> None:
        with self.lock:
            self.said += said
            self.bar.total -= len(said) * len(self.levels)

    def progress(
        self, child: int, weight: float, fraction: float, seconds: float | None, samples: int
    ) -> None:
        """A child that has `weight` of all the work has done `fraction` of it."""
        with self.lock:
            self.heard[child] = (fraction * weight, seconds, samples)
            parts, left, counted = zip(*self.heard.values(), strict=True)
            seconds = max((each for each in left if each is not None), default=None)
            self.bar.advance(sum(parts), seconds, sum(counted))


@dataclass
class Turn:
    """One child's way to the collector."""

    collector: Collector
    number: int
    weight: float

    def baseline(self, found: BaselineFound) -> None:
        self.collector.baseline(found)

    def points(self, measured: list[Measured]) -> None:
        self.collector.points(measured)

    def remarks(self, said: list[RemarkSaid]) -> None:
        self.collector.remarks(said)

    def progress(self, fraction: float, seconds: float | None, samples: int) -> None:
        self.collector.progress(self.number, self.weight, fraction, seconds, samples)


def measure_together(
    walls: Walls,
    children: Sequence[tuple[Mapping[str, Any], Wanted]],
    files: Mapping[str, Path],
    found: Collector,
) -> None:
    """Have each child measure what it is told, the first one within `walls`.

    The first that fails stops the others, and what it raised is raised. None is left.
    """
    total = sum(len(wanted.cells) for _, wanted in children) or 1
    with ExitStack() as stack:
        tasks: list[Callable[[Callable[[], bool]], None]] = []
        for number, (arguments, wanted) in enumerate(children):
            own = walls if number == 0 else walls.twin()
            if own is not walls:
                stack.callback(own.close)
            turn = Turn(found, number, len(wanted.cells) / total)
            tasks.append(_task(own, arguments, files, CurveReader(wanted, turn)))
        together(tasks)


def _task(
    walls: Walls, arguments: Mapping[str, Any], files: Mapping[str, Path], reader: CurveReader
) -> Callable[[Callable[[], bool]], None]:
    def run(should_stop: Callable[[], bool]) -> None:
        with walls.run(
            "analyse", arguments, files, on_message=reader.hear, should_stop=should_stop
        ):
            reader.finish()

    return run


def together(tasks: Sequence[Callable[[Callable[[], bool]], None]]) -> None:
    """Run all in threads; raises what the first to fail raised, once all of them have ended.

    Each gets a question that turns true when it should stop: another has failed, or Ctrl-C.
    """
    stopping = threading.Event()
    errors: list[BaseException] = []

    def run(task: Callable[[Callable[[], bool]], None]) -> None:
        try:
            task(stopping.is_set)
        except BaseException as error:
            # Appending is atomic: the first one is the cause, the others were stopped by it.
            errors.append(error)
            stopping.set()

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(WAIT_SECONDS)
    finally:
        stopping.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if errors:
        raise errors[0]
