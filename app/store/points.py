"""Measured points. A point is a fact: stored once, under its own key, whoever measured it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy import inspect as inspected
from sqlalchemy.orm import Session

from app.domain.levels import to_sparsity
from app.store import dialects
from app.store.clock import now
from app.store.tables import Analysis, Baseline, Point

KEY = ("context", "unit", "criterion", "level")


def add(session: Session, rows: Sequence[Point]) -> int:
    """Store those points that are not known yet; returns how many. `created_at` is set here."""
    columns = inspected(Point).columns.keys()
    moment = now(session)
    values = [
        {name: getattr(row, name) for name in columns} | {"created_at": row.created_at or moment}
        for row in rows
    ]
    return dialects.insert_missing(session, Point, values, KEY)


def add_baseline(session: Session, row: Baseline) -> bool:
    """Store the dense network's figures unless they are known in that context; whether it did."""
    columns = inspected(Baseline).columns.keys()
    values = {name: getattr(row, name) for name in columns}
    return dialects.insert_missing(session, Baseline, [values], ("context",)) == 1


def known_cells(session: Session, context: str) -> set[tuple[str, str, int]]:
    """The `(unit, criterion, level)` of every point known in this context."""
    statement = select(Point.unit, Point.criterion, Point.level).where(Point.context == context)
    return {(unit, criterion, level) for unit, criterion, level in session.execute(statement)}


def for_analysis(session: Session, analysis: Analysis) -> Sequence[Point]:
    """The points of the analysis's grid that are known, by criterion, unit and ascending level.

    Those with `created_at` before the analysis's were known before it was asked for.
    """
    if analysis.context is None:
        return []
    return session.scalars(_grid(analysis)).all()


def for_analyses(session: Session, analyses: Collection[Analysis]) -> dict[int, Sequence[Point]]:
    """As `for_analysis`, for several, by the analysis's id."""
    return {analysis.id: for_analysis(session, analysis) for analysis in analyses}


def as_json(point: Point) -> dict[str, Any]:
    """`unit`, `criterion` and the figures of the contract: what a `points` event carries."""
    return {"unit": point.unit, "criterion": point.criterion, **figures(point)}


def figures(point: Point) -> dict[str, Any]:
    """One entry of a curve's `points`."""
    return {
        "sparsity": to_sparsity(point.level),
        "achieved": point.removed / point.size if point.size else 0.0,
        "accuracy": point.accuracy,
        "loss": point.loss,
        "low": point.low,
        "high": point.high,
        "samples": point.samples,
        "flips": point.flips,
        "lost": point.lost,
        "gained": point.gained,
        "metrics": point.metrics or {},
    }


def _grid(analysis: Analysis) -> Select[Point]:
    statement = select(Point).where(
        Point.context == analysis.context,
        Point.criterion.in_(analysis.criteria),
        Point.level.in_(analysis.levels),
    )
    if analysis.units is not None:
        statement = statement.where(Point.unit.in_(analysis.units))
    return statement.order_by(Point.criterion, Point.unit, Point.level)
