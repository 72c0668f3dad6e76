"""Measure the curves of an analysis: the grid minus what is already known."""

from __future__ import annotations

import time

from app.domain.cells import context_key
from app.domain.statistics import wilson
from app.domain.words import SplitName
from app.store import events, points
from app.store.tables import Analysis, Baseline, Dataset, Model, Point
from worker.context import JobContext
from worker.engine.evaluation import Evaluation
from worker.engine.sensitivity import Cell, CellResult, SensitivityEngine
from worker.opening import Opened, open_files

FLUSH_SECONDS = 0.2


def analyse(context: JobContext) -> None:
    """Payload `{analysis_id}`. Points are stored, each under its own key, as they become known."""
    analysis_id = context.payload["analysis_id"]
    with context.store.read() as session:
        analysis = session.get_one(Analysis, analysis_id)
        model_row = session.get_one(Model, analysis.model_id)
        dataset_row = session.get_one(Dataset, analysis.dataset_id)
    opened = open_files(
        context.blobs.local_path(model_row.sha256),
        context.blobs.local_path(dataset_row.sha256),
        dataset_row.task,
        context.scratch("datasets", dataset_row.sha256),
    )
    split = opened.split(SplitName.TUNE)
    key = context_key(
        model_sha256=model_row.sha256,
        split_fingerprint=split.fingerprint,
        granularity=analysis.granularity,
        evaluation=analysis.evaluation,
        recalibrate_batch_norm=analysis.recalibrate_batch_norm,
        seed=analysis.seed,
    )
    grid = requested_cells(analysis, opened)
    with context.write() as session:
        session.get_one(Analysis, analysis_id).context = key
        known = points.known_cells(session, key)
        has_baseline = session.get(Baseline, key) is not None
    missing = [cell for cell in grid if (cell.unit, cell.criterion, cell.level) not in known]
    if has_baseline and not missing:
        context.progress(len(grid), len(grid), 0.0)
        return

    engine = SensitivityEngine(opened.model, split, opened.units, seed=analysis.seed)
    if not has_baseline:
        store_baseline(context, key, engine.baseline(context.should_stop))
    writer = PointWriter(context, key, total=len(grid), done=len(grid) - len(missing))
    engine.run(
        missing,
        writer.add,
        context.should_stop,
        lambda _: writer.pulse(engine.remaining_seconds),
    )
    writer.flush()
    context.progress(len(grid), len(grid), 0.0)


def requested_cells(analysis: Analysis, opened: Opened) -> list[Cell]:
    """Every cell of the analysis's grid: unit x criterion x level."""
    return [
        Cell(unit, criterion, level)
        for unit in opened.unit_ids(analysis.units)
        for criterion in analysis.criteria
        for level in analysis.levels
    ]


def baseline_row(key: str, evaluation: Evaluation) -> Baseline:
    interval = wilson(evaluation.correct, evaluation.samples)
    return Baseline(
        context=key,
        samples=evaluation.samples,
        correct=evaluation.correct,
        accuracy=evaluation.accuracy,
        loss=evaluation.loss,
        low=interval.low,
        high=interval.high,
    )


def store_baseline(context: JobContext, key: str, evaluation: Evaluation) -> None:
    row = baseline_row(key, evaluation)
    with context.write() as session:
        points.add_baseline(session, row)
        events.publish(
            session,
            context.lease.topic,
            "baseline",
            {
                "accuracy": row.accuracy,
                "loss": row.loss,
                "low": row.low,
                "high": row.high,
                "samples": row.samples,
            },
        )


class PointWriter:
    """Stores results in small batches, never later than a fraction of a second."""

    def __init__(self, context: JobContext, key: str, *, total: int, done: int) -> None:
        self.context = context
        self.key = key
        self.total = total
        self.done = done
        self.pending: list[CellResult] = []
        self.flushed_at = time.monotonic()

    def add(self, result: CellResult) -> None:
        self.pending.append(result)
        if time.monotonic() - self.flushed_at >= FLUSH_SECONDS:
            self.flush()

    def pulse(self, remaining_seconds: float | None) -> None:
        """Called often while a pass computes."""
        self.flush()
        self.context.progress(self.done, self.total, remaining_seconds)

    def flush(self) -> None:
        self.flushed_at = time.monotonic()
        if not self.pending:
            return
        rows = [point_row(self.key, result) for result in self.pending]
        with self.context.write() as session:
            points.add(session, rows)
            events.publish(
                session,
                self.context.lease.topic,
                "points",
                {"points": [points.as_json(row) for row in rows]},
            )
        self.done += len(rows)
        self.pending.clear()


def point_row(key: str, result: CellResult) -> Point:
    evaluation = result.evaluation
    interval = wilson(evaluation.correct, evaluation.samples)
    return Point(
        context=key,
        unit=result.cell.unit,
        criterion=result.cell.criterion,
        level=result.cell.level,
        size=result.size,
        removed=result.removed,
        samples=evaluation.samples,
        correct=evaluation.correct,
        accuracy=evaluation.accuracy,
        loss=evaluation.loss,
        low=interval.low,
        high=interval.high,
        flips=evaluation.flips,
        lost=evaluation.lost,
        gained=evaluation.gained,
    )
