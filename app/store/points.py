"""Measured points. A point is a fact under its own key, whoever measured it; it gives way only to
the same fact known from more samples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Select, delete, select
from sqlalchemy import inspect as inspected
from sqlalchemy.orm import Session

from app.domain.point_facts import PointFacts
from app.store import dialects
from app.store.clock import now
from app.store.tables import Analysis, Baseline, Outcome, Point

KEY = ("context", "unit", "criterion", "level")
DENSE = ("", "", 0)
"""Unit, criterion and level of the dense network's own outcome."""
_AT_ONCE = 500

Cell = tuple[str, str, int]
"""Unit, criterion, level."""


def add(session: Session, rows: Sequence[Point]) -> int:
    """Store those points that are new, or known from fewer samples so far; returns how many.

    `created_at` is set here, and stays what it was when a point is replaced.
    """
    columns = inspected(Point).columns.keys()
    moment = now(session)
    values = [
        {name: getattr(row, name) for name in columns}
        | {"created_at": row.created_at or moment, "updated_at": moment}
        for row in rows
    ]
    return dialects.insert_larger(session, Point, values, KEY, "samples", kept=("created_at",))


def add_outcomes(session: Session, rows: Sequence[Outcome]) -> int:
    """As `add`, for the answers behind points."""
    columns = inspected(Outcome).columns.keys()
    values = [{name: getattr(row, name) for name in columns} for row in rows]
    return dialects.insert_larger(session, Outcome, values, KEY, "samples")


def add_baseline(session: Session, row: Baseline) -> bool:
    """Store the dense network's figures unless they are known in that context; whether it did."""
    columns = inspected(Baseline).columns.keys()
    values = {name: getattr(row, name) for name in columns}
    return dialects.insert_missing(session, Baseline, [values], ("context",)) == 1


def forget_parts(session: Session, context: str) -> None:
    """Drop what holds only in one order of samples: points that are not whole, and all answers.

    The dense network's figures go with them, so that the next child tells its own.
    """
    session.execute(delete(Outcome).where(Outcome.context == context))
    session.execute(
        delete(Point).where(
            Point.context == context, Point.of.is_not(None), Point.samples < Point.of
        )
    )
    session.execute(delete(Baseline).where(Baseline.context == context))


def known(session: Session, context: str) -> dict[Cell, Point]:
    """Every point of this context, of whatever grid and from however many samples."""
    statement = select(Point).where(Point.context == context)
    return {(row.unit, row.criterion, row.level): row for row in session.scalars(statement)}


def outcome(session: Session, context: str, cell: Cell) -> Outcome | None:
    """The answers of one cell; None while they are not known."""
    return session.get(Outcome, (context, *cell))


def outcomes(session: Session, context: str, units: Collection[str]) -> dict[Cell, Outcome]:
    """The answers of all cells of these units that are known."""
    found: dict[Cell, Outcome] = {}
    listed = list(units)
    for start in range(0, len(listed), _AT_ONCE):
        statement = select(Outcome).where(
            Outcome.context == context, Outcome.unit.in_(listed[start : start + _AT_ONCE])
        )
        for row in session.scalars(statement):
            found[(row.unit, row.criterion, row.level)] = row
    return found


def for_analysis(session: Session, analysis: Analysis) -> Sequence[Point]:
    """The points of the analysis that are known, by criterion, unit and ascending level."""
    if analysis.context is None:
        return []
    extra = extra_cells(analysis)
    grid = set(analysis.levels)
    return [
        row
        for row in session.scalars(_selected(analysis))
        if row.level in grid or (row.unit, row.criterion, row.level) in extra
    ]


def for_analyses(session: Session, analyses: Collection[Analysis]) -> dict[int, Sequence[Point]]:
    """As `for_analysis`, for several, by the analysis's id."""
    return {analysis.id: for_analysis(session, analysis) for analysis in analyses}


def extra_cells(analysis: Analysis) -> set[Cell]:
    """The cells beside the analysis's grid that it was refined by."""
    return {(unit, criterion, level) for unit, criterion, level in analysis.extra or ()}


def levels_of(analysis: Analysis) -> list[int]:
    """The levels of the grid and of the refinement, ascending."""
    return sorted({*analysis.levels, *(level for _, _, level in extra_cells(analysis))})


def facts_of(row: Point) -> PointFacts:
    """What is shown of a point, and the sums behind it."""
    return PointFacts(*(getattr(row, name) for name in PointFacts._fields))


def baseline_json(row: Baseline) -> dict[str, Any]:
    """What a `baseline` event carries."""
    return {
        "kind": row.kind,
        "accuracy": row.accuracy,
        "loss": row.loss,
        "low": row.low,
        "high": row.high,
        "samples": row.samples,
        "metrics": row.metrics,
        "arithmetic": row.arithmetic,
    }


def _selected(analysis: Analysis) -> Select[Point]:
    statement = select(Point).where(
        Point.context == analysis.context,
        Point.criterion.in_(analysis.criteria),
        Point.level.in_(levels_of(analysis)),
    )
    if analysis.units is not None:
        statement = statement.where(Point.unit.in_(analysis.units))
    return statement.order_by(Point.criterion, Point.unit, Point.level)
