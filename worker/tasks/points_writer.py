"""Stores what children measured as it is told, each message together with its event."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from app.domain.point_facts import PointReader
from app.store import events, known, points
from app.store.points import DENSE, Cell
from app.store.tables import Analysis, Baseline, Dataset, Outcome, Point
from worker.context import JobContext
from worker.tasks.children import StreamChanged
from worker.tasks.curves import BaselineFound, Measured
from worker.tasks.outcomes import OutcomeFacts, same_bytes
from worker.tasks.reports import RemarkSaid, require


@dataclass
class PointWriter:
    """One for all children of an analysis, who take turns. `stored`: the baseline that is there.

    `searching`: how far the job is says the children's word, as no one knows which cells a search
    will need.
    """

    context: JobContext
    key: str
    analysis_id: int
    stored: Baseline | None
    dense: Outcome | None
    total: int
    settled: set[Cell]
    counted: int
    searching: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)
    heard: dict[int, tuple[float, float | None, int, float]] = field(default_factory=dict)
    fresh: BaselineFound | None = None

    def baseline(self, found: BaselineFound) -> None:
        """Raises StreamChanged where this machine puts samples in another order than was stored,
        ChildMalformed when two children of one run don't agree."""
        with self.lock:
            strata = None if found.dense.strata is None else found.dense.strata.as_json()
            if self.fresh is not None:
                before = self.fresh
                same = before.dense.strata == found.dense.strata
                same = same and same_stream(before.outcome, found.outcome)
                require(same, "two networks where there is one")
                return
            self.fresh = found
            if self.stored is not None:
                if self.stored.strata != strata or not same_stream(self.dense, found.outcome):
                    raise StreamChanged
                return
            figures = found.figures
            row = Baseline(
                context=self.key,
                kind=figures.kind.value,
                strata=strata,
                arithmetic=found.dense.arithmetic,
                **figures.columns(),
            )
            with self.context.write() as session:
                points.add_baseline(session, row)
                if found.outcome is not None:
                    points.add_outcomes(session, [outcome_row(self.key, DENSE, found.outcome)])
                data = points.baseline_json(row)
                events.publish(session, self.context.lease.topic, "baseline", data)
            self.stored = row

    def points(self, measured: list[Measured]) -> None:
        with self.lock:
            rows = [Point(context=self.key, **each.facts._asdict()) for each in measured]
            outcomes = [
                outcome_row(self.key, each.cell, each.outcome)
                for each in measured
                if each.outcome is not None
            ]
            with self.context.write() as session:
                analysis = session.get_one(Analysis, self.analysis_id)
                points.add(session, latest(rows))
                points.add_outcomes(session, outcomes)
                self._note_extra(analysis, measured)
                reader = self._reader(session, analysis)
                data = {"points": [reader.told(each.facts) for each in measured]}
                events.publish(session, self.context.lease.topic, "points", data)
            self.settled.update(each.cell for each in measured if each.settled)

    def remarks(self, said: list[RemarkSaid]) -> None:
        with self.lock, self.context.write() as session:
            analysis = session.get_one(Analysis, self.analysis_id)
            before: list[dict[str, Any]] = analysis.remarks or []
            known_already = {(each["unit"], each["criterion"]) for each in before}
            more = [
                each.model_dump()
                for each in said
                if (each.unit, each.criterion) not in known_already
            ]
            analysis.remarks = [*before, *more]
            self.total -= len(said) * len(analysis.levels)
            events.publish(session, self.context.lease.topic, "remarks", {"remarks": more})

    def progress(
        self, child: int, weight: float, fraction: float, seconds: float | None, samples: int
    ) -> None:
        """One child's share of the work, which is `weight` of it all, is so far."""
        with self.lock:
            self.heard[child] = (fraction, seconds, samples, weight)
            done = float(len(self.settled))
            if self.searching:
                done = self.total * sum(each[0] * each[3] for each in self.heard.values())
            left = [each[1] for each in self.heard.values() if each[1] is not None]
            eta = max(left, default=None)
            self.context.progress(min(done, self.total), self.total, eta, self.samples)

    @property
    def samples(self) -> int:
        """Evaluations of a sample, those of earlier attempts among them."""
        return self.counted + sum(each[2] for each in self.heard.values())

    def _reader(self, session: Session, analysis: Analysis) -> PointReader:
        dataset = session.get_one(Dataset, analysis.dataset_id)
        return known.reader_of(analysis, dataset, self.stored)

    def _note_extra(self, analysis: Analysis, measured: list[Measured]) -> None:
        """Cells that are not of the grid are of the analysis from now on."""
        grid = set(analysis.levels)
        before = points.extra_cells(analysis)
        added = {each.cell for each in measured if each.cell[2] not in grid} - before
        if added:
            analysis.extra = [list(cell) for cell in sorted(before | added)]
            self.total += len(added)


def same_stream(first: Outcome | OutcomeFacts | None, second: OutcomeFacts | None) -> bool:
    """Whether the dense network answers alike along both, as far as both are known."""
    if first is None or second is None:
        return first is second
    return same_bytes(first.hits, second.hits) and same_bytes(first.state, second.state)


def outcome_row(key: str, cell: Cell, facts: OutcomeFacts) -> Outcome:
    unit, criterion, level = cell
    return Outcome(
        context=key,
        unit=unit,
        criterion=criterion,
        level=level,
        samples=facts.samples,
        hits=facts.hits,
        by_class=facts.by_class,
        sums=facts.sums,
        state=facts.state,
    )


def latest(rows: list[Point]) -> list[Point]:
    """Each cell once, as it was told last."""
    return list({(row.unit, row.criterion, row.level): row for row in rows}.values())
