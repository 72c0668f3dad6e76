"""Measure cells, and tell the figures of each as soon as it is known."""

from __future__ import annotations

import time
from typing import Any

from worker.engine.sensitivity import Cell, CellResult, SensitivityEngine
from worker.inside.figures import figures
from worker.inside.job import InsideJob
from worker.inside.opening import open_both

TELL_SECONDS = 0.1
TELL_AT_ONCE = 500


def run(job: InsideJob) -> dict[str, Any]:
    """Files as `open_both`, arguments `split`, `seed`, `confidence`, `cells` (the missing ones).

    `cells` is `[[unit, criterion, [level, ...]], ...]`. Tells `baseline` first, then `points`
    (`{points: [{unit, criterion, level, figures}]}`) and `progress` (`{fraction, seconds}`: done,
    and left).
    """
    arguments = job.arguments
    opened = open_both(job)
    engine = SensitivityEngine(
        opened.model, opened.split(arguments["split"]), opened.units, seed=arguments["seed"]
    )
    confidence = arguments["confidence"]
    job.tell("baseline", figures(engine.baseline(job.should_stop), confidence))
    teller = PointTeller(job, confidence)
    cells = [
        Cell(unit, criterion, level)
        for unit, criterion, levels in arguments["cells"]
        for level in levels
    ]

    def pulse(fraction: float) -> None:
        teller.tell()
        left = {"fraction": fraction, "seconds": engine.remaining_seconds}
        job.tell("progress", left)

    engine.run(cells, teller.add, job.should_stop, pulse)
    teller.tell()
    return {}


class PointTeller:
    """Tells results in small batches, never later than a fraction of a second."""

    def __init__(self, job: InsideJob, confidence: float) -> None:
        self.job = job
        self.confidence = confidence
        self.waiting: list[dict[str, Any]] = []
        self.told_at = time.monotonic()

    def add(self, result: CellResult) -> None:
        cell = result.cell
        self.waiting.append(
            {
                "unit": cell.unit,
                "criterion": cell.criterion,
                "level": cell.level,
                "figures": figures(result.evaluation, self.confidence),
            }
        )
        late = time.monotonic() - self.told_at >= TELL_SECONDS
        if late or len(self.waiting) >= TELL_AT_ONCE:
            self.tell()

    def tell(self) -> None:
        self.told_at = time.monotonic()
        if self.waiting:
            self.job.tell("points", {"points": self.waiting})
            self.waiting = []
