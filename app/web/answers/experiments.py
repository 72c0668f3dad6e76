"""Experiments, their runs and epochs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from app.web.answers.common import Error, Progress, State
from app.web.answers.figures import Estimate, Judged


class Epoch(BaseModel):
    step: int
    epoch: int
    sparsity: float
    train_loss: float | None
    tune_accuracy: float | None
    tune_loss: float | None
    tune_metrics: dict[str, Estimate]
    low: float | None
    high: float | None
    learning_rate: float | None


class Run(BaseModel):
    name: str
    trajectory: list[Epoch]
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    best_epoch: int | None


class ExperimentSummary(Judged):
    id: int
    plan_id: int
    analysis_id: int
    model_id: int
    model_name: str
    settings: dict[str, Any]
    status: State
    error: Error | None
    job_id: int
    progress: Progress
    created_at: str


class Experiment(ExperimentSummary):
    event_id: int
    baseline: dict[str, Any] | None
    runs: list[Run]


class ExperimentList(BaseModel):
    items: list[ExperimentSummary]
    next_cursor: str | None
