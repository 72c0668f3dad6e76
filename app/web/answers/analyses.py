"""Analyses and their curves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from app.web.answers.common import Error, Priority, Progress, State
from app.web.answers.figures import Dense, Judged, Point
from app.web.answers.models import Unit


class Knee(BaseModel):
    """The largest measured sparsity up to which every drop is within the tolerated one."""

    sparsity: float
    drop: float
    low: float
    high: float


class Curve(BaseModel):
    """`fit`: `[[sparsity, drop], …]`, the rising curve that fits the points best.

    `remark`: why there is no curve.
    """

    unit: str
    criterion: str
    points: list[Point]
    knee: Knee | None
    fit: list[list[float]]
    remark: str | None


class Cells(BaseModel):
    """`total` in the grid and its refinement; `known` before the analysis was asked for; `done`
    have a point; `settled` are known as well as asked for."""

    total: int
    known: int
    done: int
    settled: int


class Remark(BaseModel):
    unit: str
    criterion: str
    reason: str


class SharperGoal(BaseModel):
    units: list[str] | None
    sparsities: list[float] | None
    half_width: float | None
    exact: bool


class AnalysisSummary(Judged):
    id: int
    model_id: int
    dataset_id: int
    model_name: str
    dataset_name: str
    status: State
    error: Error | None
    job_id: int
    progress: Progress
    paused: bool
    priority: Priority
    baseline: Dense | None
    created_at: str


class Analysis(AnalysisSummary):
    granularity: str
    criteria: list[str]
    sparsities: list[float]
    evaluation: dict[str, Any]
    recalibrate_batch_norm: bool
    seed: int
    goals: list[SharperGoal]
    known: int
    cells: Cells
    remarks: list[Remark]
    event_id: int
    units: list[Unit]
    curves: list[Curve]


class AnalysisList(BaseModel):
    items: list[AnalysisSummary]
    next_cursor: str | None
