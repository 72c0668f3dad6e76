"""Analyses: one row with all its neighbours, one query for the points."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from app.domain.errors import NotFound
from app.domain.metrics import Kind, primary
from app.store.events import analysis_topic
from app.store.tables import (
    Analysis,
    Baseline,
    Dataset,
    Job,
    Measurement,
    Model,
    Plan,
    Point,
    Topic,
)
from app.web.paging import Paging, fetch
from app.web.views.analyses import (
    PointFacts,
    analysed_units,
    analysis_summary,
    analysis_view,
    curves_view,
    predicted_view,
    thin_curves,
)
from app.web.views.common import JSON, instant
from app.web.views.metrics import estimates, kind_of
from app.web.views.models import weight_units

THIN_LEVELS = 12
THIN_UNITS = 80


@dataclass(frozen=True)
class Found:
    """An analysis with what belongs to it."""

    row: Analysis
    model: Model
    dataset: Dataset
    job: Job | None
    baseline: Baseline | None
    event_id: int

    @property
    def kind(self) -> Kind:
        return kind_of(self.baseline, self.dataset)

    @property
    def summary(self) -> JSON:
        return analysis_summary(self.row, self.job, self.model, self.dataset, self.baseline)


def _with_neighbours() -> Select[Any]:
    return (
        select(Analysis, Model, Dataset, Job, Baseline)
        .join(Model, Model.id == Analysis.model_id)
        .join(Dataset, Dataset.id == Analysis.dataset_id)
        .outerjoin(Job, Job.id == Analysis.job_id)
        .outerjoin(Baseline, Baseline.context == Analysis.context)
    )


def find(session: Session, analysis_id: int) -> Found:
    """Raises NotFound."""
    seq = select(Topic.seq).where(Topic.name == analysis_topic(analysis_id)).scalar_subquery()
    statement = _with_neighbours().add_columns(seq).where(Analysis.id == analysis_id)
    found = session.execute(statement).first()
    if found is None:
        raise NotFound(f"There is no analysis {analysis_id}.", "GET /api/analyses lists them.")
    row, model, dataset, job, baseline, event_id = found
    return Found(row, model, dataset, job, baseline, event_id or 0)


def points_of(
    session: Session,
    analysis: Analysis,
    *,
    units: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
) -> list[PointFacts]:
    """The analysis's points by unit and rising level, whoever measured them. Few `units` only."""
    if analysis.context is None:
        return []
    statement = (
        select(
            Point.unit, Point.criterion, Point.level, Point.size, Point.removed, Point.samples,
            Point.accuracy, Point.loss, Point.low, Point.high, Point.flips, Point.lost,
            Point.gained, Point.metrics,
        )
        .where(
            Point.context == analysis.context,
            Point.criterion.in_(analysis.criteria),
            Point.level.in_(analysis.levels if levels is None else levels),
        )
        .order_by(Point.unit, Point.criterion, Point.level)
    )  # fmt: skip
    if units is not None:
        statement = statement.where(Point.unit.in_(units))
    return [PointFacts(*row) for row in session.execute(statement)]


def known_count(session: Session, analysis: Analysis) -> int:
    """How many of its points were measured before it was asked for."""
    if analysis.context is None:
        return 0
    statement = select(func.count()).where(
        Point.context == analysis.context,
        Point.criterion.in_(analysis.criteria),
        Point.level.in_(analysis.levels),
        Point.created_at < analysis.created_at,
    )
    if analysis.units is not None and len(analysis.units) <= 10_000:
        statement = statement.where(Point.unit.in_(analysis.units))
    return session.scalar(statement) or 0


def view(session: Session, found: Found) -> JSON:
    return analysis_view(
        found.summary,
        found.row,
        weight_units(found.model),
        points_of(session, found.row),
        known=known_count(session, found.row),
        event_id=found.event_id,
    )


def list_analyses(
    session: Session,
    asked: Paging,
    *,
    model_id: int | None = None,
    dataset_id: int | None = None,
) -> tuple[list[JSON], str | None]:
    rows, cursor = _page(session, asked, model_id, dataset_id)
    return [analysis_summary(row[0], row[3], row[1], row[2], row[4]) for row in rows], cursor


def list_with_curves(
    session: Session,
    asked: Paging,
    thin: ThinCurves,
    *,
    model_id: int | None = None,
    dataset_id: int | None = None,
) -> list[JSON]:
    """Summaries for the pages, each with thin curves and its best plan."""
    rows, _ = _page(session, asked, model_id, dataset_id)
    plans = _best_plans(session, [row[0].id for row in rows])
    listed = []
    for analysis, model, dataset, job, baseline in rows:
        summary = analysis_summary(analysis, job, model, dataset, baseline)
        kind = kind_of(baseline, dataset)
        summary["curves"] = thin.get(session, analysis, model, kind, summary["status"] == "done")
        summary["best_plan"] = plans.get(analysis.id)
        listed.append(summary)
    return listed


class ThinCurves:
    """Curves for small pictures. Those of a finished analysis never change, so they are kept."""

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._kept: OrderedDict[int, dict[str, list[list[float]]]] = OrderedDict()
        self._lock = Lock()

    def get(
        self, session: Session, analysis: Analysis, model: Model, kind: Kind, finished: bool
    ) -> dict[str, list[list[float]]]:
        """`{unit: [[sparsity, value], …]}` in the primary metric."""
        with self._lock:
            if analysis.id in self._kept:
                return self._kept[analysis.id]
        units = analysed_units(analysis, weight_units(model))[:THIN_UNITS]
        step = max(1, -(-len(analysis.levels) // THIN_LEVELS))
        levels = analysis.levels[::-1][::step]
        points = points_of(session, analysis, units=units, levels=levels)
        thin = thin_curves(curves_view(units, analysis.criteria[:1], points), primary(kind).name)
        if finished:
            with self._lock:
                self._kept[analysis.id] = thin
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
        return thin


def _page(
    session: Session, asked: Paging, model_id: int | None, dataset_id: int | None
) -> tuple[list[Row[Any]], str | None]:
    statement = _with_neighbours()
    if model_id is not None:
        statement = statement.where(Analysis.model_id == model_id)
    if dataset_id is not None:
        statement = statement.where(Analysis.dataset_id == dataset_id)
    return fetch(session, statement, Analysis.id, asked)


def _best_plans(session: Session, analysis_ids: Sequence[int]) -> dict[int, JSON]:
    """By analysis: its newest measured plan, or else its newest one."""
    statement = (
        select(Plan, Measurement)
        .outerjoin(Measurement, Measurement.plan_id == Plan.id)
        .where(Plan.analysis_id.in_(analysis_ids))
        .order_by(Plan.id, Measurement.id)
    )
    best: dict[int, tuple[bool, JSON]] = {}
    for plan, measurement in session.execute(statement):
        measured = measurement is not None
        if best.get(plan.analysis_id, (False,))[0] and not measured:
            continue
        shown = {
            "id": plan.id,
            "sparsity": plan.predicted["sparsity"],
            "predicted": predicted_view(plan.predicted),
            "measured": None,
            "created_at": instant(plan.created_at),
        }
        if measured:
            shown["sparsity"] = measurement.sparsity
            shown["measured"] = {
                "accuracy": measurement.accuracy,
                "low": measurement.low,
                "high": measurement.high,
                "samples": measurement.samples,
                "metrics": estimates(
                    measurement.metrics,
                    measurement.accuracy,
                    measurement.low,
                    measurement.high,
                    measurement.loss,
                ),
            }
        best[plan.analysis_id] = (measured, shown)
    return {analysis_id: shown for analysis_id, (_, shown) in best.items()}
