"""Plans, what is predicted of them and what was measured."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from app.web.answers.figures import Accuracy, Estimate


class Predicted(BaseModel):
    """Figures that nobody has measured: what the curves add up to."""

    accuracy: float | None
    low: float | None
    high: float | None
    metric: str
    metrics: dict[str, Estimate]
    sparsity: float
    parameters: int
    macs: int
    bytes: int


class Measurement(Accuracy):
    split: str
    confidence: float
    sparsity: float
    flips: int | None
    lost: int | None
    gained: int | None
    baseline: dict[str, Any] | None
    created_at: str


class Plan(BaseModel):
    id: int
    analysis_id: int
    criterion: str
    name: str
    sparsities: dict[str, float]
    predicted: Predicted
    measurements: list[Measurement]
    certificates: list[dict[str, Any]]
    created_at: str


class PlanList(BaseModel):
    items: list[Plan]
    next_cursor: str | None
