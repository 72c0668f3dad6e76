"""Analyses: one row with all its neighbours, one query for the points."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

from sqlalchemy import Row, Select, select
from sqlalchemy.orm import Session

from app.domain.errors import NotFound
from app.domain.metrics import Kind, primary
from app.domain.point_facts import FACTS, PointFacts, PointReader
from app.store.events import analysis_topic
from app.store.known import reader_of
from app.store.points import extra_cells, levels_of
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
    analysed_units,
    analysis_summary,
    analysis_view,
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

    @cached_property
    def reader(self) -> PointReader:
        return reader_of(self.row, self.dataset, self.baseline)

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
    found: Found,
    *,
    units: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
) -> list[PointFacts]:
    """The analysis's points by unit and rising level, whoever measured them. Few `units` only.

    They come fresh: with drops, and with intervals as the analysis asks for them.
    """
    row, reader = found.row, found.reader
    if row.context is None:
        return []
    extra, grid = extra_cells(row), set(row.levels)
    statement = (
        select(*(getattr(Point, name) for name in FACTS))
        .where(
            Point.context == row.context,
            Point.criterion.in_(row.criteria),
            Point.level.in_(levels_of(row) if levels is None else levels),
        )
        .order_by(Point.unit, Point.criterion, Point.level)
    )
    if units is not None:
        statement = statement.where(Point.unit.in_(units))
    listed = [PointFacts(*each) for each in session.execute(statement)]
    if extra:
        listed = [
            each
            for each in listed
            if each.level in grid or (each.unit, each.criterion, each.level) in extra
        ]
    if any(map(reader.stale, listed)):
        listed = _with_sums(session, row.context, listed, reader)
    return [reader.fresh(each) for each in listed]


def _with_sums(
    session: Session, context: str, listed: Sequence[PointFacts], reader: PointReader
) -> list[PointFacts]:
    """The same, and what the stale ones are computed from."""
    statement = select(Point.unit, Point.criterion, Point.level, Point.sums).where(
        Point.context == context, Point.sums.is_not(None)
    )
    sums = {tuple(each[:3]): each[3] for each in session.execute(statement)}
    return [
        each._replace(sums=sums.get((each.unit, each.criterion, each.level)))
        if reader.stale(each)
        else each
        for each in listed
    ]


def view(session: Session, found: Found) -> JSON:
    return analysis_view(
        found.summary,
        found.row,
        weight_units(found.model),
        points_of(session, found),
        found.reader,
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
        found = Found(analysis, model, dataset, job, baseline, 0)
        summary["curves"] = thin.get(session, found, summary["status"] == "done")
        summary["best_plan"] = plans.get(analysis.id)
        listed.append(summary)
    return listed


class ThinCurves:
    """Curves for small pictures. Those of a finished analysis are kept until it is sharpened."""

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[int, int], dict[str, list[list[float]]]] = OrderedDict()
        self._lock = Lock()

    def get(self, session: Session, found: Found, finished: bool) -> dict[str, list[list[float]]]:
        """`{unit: [[sparsity, value], …]}` in the primary metric."""
        row = found.row
        key = (row.id, len(row.goals or ()))
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        units = analysed_units(row, weight_units(found.model))[:THIN_UNITS]
        step = max(1, -(-len(row.levels) // THIN_LEVELS))
        levels = row.levels[::-1][::step]
        points = points_of(session, found, units=units, levels=levels)
        thin = thin_curves(points, units, row.criteria[0], primary(found.kind).name)
        if finished:
            with self._lock:
                self._kept[key] = thin
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
