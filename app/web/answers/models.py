"""Models, their layers and their units."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from app.web.answers.common import Error, Status


class Layer(BaseModel):
    path: str
    type: str
    parameters: int
    macs: int
    output_shape: list[int | None]


class Unit(BaseModel):
    id: str
    size: int
    shape: list[int]
    members: list[str]
    layer: str
    macs: int
    itemsize: int
    prunable: bool
    reason: str | None


class ModelSummary(BaseModel):
    id: int
    name: str
    format: str
    sha256: str
    bytes: int
    architecture: str | None
    kind: Literal["network", "weights"]
    status: Status
    error: Error | None
    parameters: int | None
    macs: int | None
    job_id: int | None
    created_at: str


class ModelDetails(BaseModel):
    """`architecture_args`: those in force, also where they were found in the weights.

    `weights`: a look at each tensor, where the file holds no network.
    """

    kind: Literal["network", "weights"]
    notes: list[str]
    key_prefix: str
    nested_under: str
    architecture_args: dict[str, Any]
    weights: list[dict[str, Any]]


class Model(ModelSummary):
    layers: list[Layer]
    units: dict[str, list[Unit]]
    inputs: list[dict[str, Any]]
    fixed_batch: int | None
    architecture_args: dict[str, Any] | None
    details: ModelDetails


class ModelList(BaseModel):
    items: list[ModelSummary]
    next_cursor: str | None
