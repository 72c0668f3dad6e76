"""Measure the curves of an analysis: the grid minus what is already known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.domain.cells import context_key
from app.domain.levels import removed_count, to_sparsity
from app.domain.statistics import DEFAULT_CONFIDENCE
from app.domain.words import SplitName
from app.store import events, points
from app.store.tables import Analysis, Baseline, Dataset, Model, Point
from worker.context import JobContext
from worker.tasks import uploads
from worker.tasks.curves import Cell, CurveReader, as_argument
from worker.tasks.reports import Figures


def analyse(context: JobContext) -> None:
    """Payload `{analysis_id}`. Points are stored, each under its own key, as they become known."""
    analysis_id = context.payload["analysis_id"]
    with context.store.read() as session:
        analysis = session.get_one(Analysis, analysis_id)
        model = session.get_one(Model, analysis.model_id)
        dataset = session.get_one(Dataset, analysis.dataset_id)
    uploads.require_network(model)
    size = uploads.split_size(dataset, SplitName.TUNE)
    key = context_key(
        model_sha256=uploads.network_sha256(model),
        dataset_sha256=dataset.sha256,
        task=dataset.task,
        options=dataset.options,
        split=SplitName.TUNE,
        granularity=analysis.granularity,
        evaluation=analysis.evaluation,
        recalibrate_batch_norm=analysis.recalibrate_batch_norm,
        seed=analysis.seed,
    )
    unit_sizes = uploads.unit_sizes(model)
    grid = requested_cells(analysis, unit_sizes)
    with context.write() as session:
        session.get_one(Analysis, analysis_id).context = key
        known = points.known_cells(session, key)
        baseline = session.get(Baseline, key)
    missing = [cell for cell in grid if cell not in known]
    if baseline is not None and not missing:
        context.progress(len(grid), len(grid), 0.0)
        return
    writer = PointWriter(context, key, unit_sizes, total=len(grid), done=len(grid) - len(missing))
    writer.has_baseline = baseline is not None
    reader = CurveReader(missing, size, writer, kind=baseline.kind if baseline else None)
    arguments = uploads.reading(dataset) | {
        "split": SplitName.TUNE,
        "seed": analysis.seed,
        "confidence": DEFAULT_CONFIDENCE,
        "cells": as_argument(missing),
    }
    with context.inside(
        "analyse", arguments, uploads.files_of(context, model, dataset), reader.hear
    ):
        reader.finish()
    context.progress(len(grid), len(grid), 0.0)


def requested_cells(analysis: Analysis, unit_sizes: Mapping[str, int]) -> list[Cell]:
    """Every cell of the analysis's grid: unit x criterion x level."""
    chosen = unit_sizes if analysis.units is None else set(analysis.units)
    return [
        (unit, criterion, level)
        for unit in unit_sizes
        if unit in chosen
        for criterion in analysis.criteria
        for level in analysis.levels
    ]


class PointWriter:
    """Stores what a child measured as it is told, each batch together with its event."""

    def __init__(
        self,
        context: JobContext,
        key: str,
        unit_sizes: Mapping[str, int],
        *,
        total: int,
        done: int,
    ) -> None:
        self.context = context
        self.key = key
        self.unit_sizes = unit_sizes
        self.total = total
        self.done = done
        self.has_baseline = False

    def baseline(self, figures: Figures) -> None:
        if self.has_baseline:
            return
        self.has_baseline = True
        row = Baseline(context=self.key, kind=figures.kind.value, **figures.columns())
        with self.context.write() as session:
            points.add_baseline(session, row)
            events.publish(session, self.context.lease.topic, "baseline", baseline_json(row))

    def points(self, measured: list[tuple[Cell, Figures]]) -> None:
        rows = [point_row(self.key, cell, self.unit_sizes[cell[0]], f) for cell, f in measured]
        with self.context.write() as session:
            points.add(session, rows)
            data = {"points": [points.as_json(row) for row in rows]}
            events.publish(session, self.context.lease.topic, "points", data)
        self.done += len(rows)

    def progress(self, fraction: float, seconds: float | None) -> None:
        self.context.progress(self.done, self.total, seconds)


def baseline_json(row: Baseline) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "accuracy": row.accuracy,
        "loss": row.loss,
        "low": row.low,
        "high": row.high,
        "samples": row.samples,
        "metrics": row.metrics,
    }


def point_row(key: str, cell: Cell, size: int, figures: Figures) -> Point:
    unit, criterion, level = cell
    return Point(
        context=key,
        unit=unit,
        criterion=criterion,
        level=level,
        size=size,
        removed=removed_count(to_sparsity(level), size),
        **figures.columns(),
        **figures.paired(),
    )
