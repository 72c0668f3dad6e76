"""What of an analysis is known already: its grid, held against the points of its context."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from app.domain.adaptive import Strata
from app.domain.goals import Goals
from app.domain.metrics import Kind
from app.domain.point_facts import Dense, PointReader
from app.domain.words import SplitName
from app.store import points
from app.store.points import Cell
from app.store.tables import Analysis, Baseline, Dataset, Model


def goals_of(analysis: Analysis, dataset: Dataset) -> Goals:
    samples = (dataset.splits or {}).get(SplitName.TUNE)
    return Goals.of(analysis.evaluation, analysis.goals, samples)


def dense_of(row: Baseline) -> Dense:
    """The dense network's figures. Those of the first version were all of classes."""
    return Dense(
        kind=Kind(row.kind) if row.kind in list(Kind) else Kind.SINGLE_LABEL,
        samples=row.samples,
        accuracy=row.accuracy,
        loss=row.loss,
        metrics=row.metrics or {},
        strata=Strata.of(row.strata) if row.strata else None,
        arithmetic=row.arithmetic,
    )


def reader_of(analysis: Analysis, dataset: Dataset, baseline: Baseline | None) -> PointReader:
    """How the analysis's points are read."""
    dense = None if baseline is None else dense_of(baseline)
    return PointReader(goals_of(analysis, dataset), dense)


def grid_of(analysis: Analysis, model: Model) -> list[Cell]:
    """Every cell of the analysis's grid: unit x criterion x level, units in network order."""
    units: list[dict[str, Any]] = (model.units or {}).get(analysis.granularity, [])
    chosen = None if analysis.units is None else set(analysis.units)
    return [
        (unit["id"], criterion, level)
        for unit in units
        if unit["prunable"] and (chosen is None or unit["id"] in chosen)
        for criterion in analysis.criteria
        for level in analysis.levels
    ]


def count_known(session: Session, analysis: Analysis, model: Model, dataset: Dataset) -> int:
    """How many cells of the grid need no measuring, by what the analysis asks for now."""
    if analysis.context is None:
        return 0
    baseline = session.get(Baseline, analysis.context)
    if baseline is None:
        return 0
    reader = reader_of(analysis, dataset, baseline)
    grid = set(grid_of(analysis, model))
    found = points.known(session, analysis.context)
    return sum(
        reader.settled(reader.fresh(points.facts_of(row)))
        for cell, row in found.items()
        if cell in grid
    )
