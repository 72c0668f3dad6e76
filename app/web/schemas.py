"""Request bodies. Unknown fields are named rather than ignored; numbers are numbers, not texts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_LEVELS = 200
MAX_UNITS = 100_000
MAX_NAME = 200
MAX_SEED = 2**31 - 1

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
UnitName = Annotated[str, Field(min_length=1, max_length=1000)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class EvaluationBody(Body):
    """`exact` runs every sample of the tune split; `adaptive` stops early."""

    mode: Literal["exact", "adaptive"] = "exact"
    half_width: Annotated[float, Field(gt=0, lt=1)] | None = None
    confidence: Annotated[float, Field(gt=0.5, lt=1)] | None = None


class AnalysisBody(Body):
    """A sensitivity analysis. Only the two ids are required."""

    model_id: Id
    dataset_id: Id
    granularity: Literal["weight", "channel"] = "weight"
    criteria: Annotated[list[str], Field(min_length=1, max_length=20)] = ["magnitude"]
    sparsities: Annotated[list[Fraction], Field(min_length=1, max_length=MAX_LEVELS)] | None = (
        Field(None, description="The grid of every curve; by default 0.05, 0.1 … 0.95.")
    )
    units: Annotated[list[UnitName], Field(min_length=1, max_length=MAX_UNITS)] | None = Field(
        None, description="Ids of the units to analyse; by default all that can be pruned."
    )
    evaluation: EvaluationBody = EvaluationBody()
    recalibrate_batch_norm: bool = False
    seed: Seed = 0


class PlanBody(Body):
    """One sparsity for each unit that is to be pruned. Units that are not named stay whole."""

    analysis_id: Id
    criterion: str | None = None
    name: Annotated[str, Field(max_length=MAX_NAME)] | None = None
    sparsities: Annotated[dict[UnitName, Fraction], Field(max_length=MAX_UNITS)] | None = None
    target: dict[str, Any] | None = None
    pinned: dict[str, Fraction] | None = None


class MeasureBody(Body):
    split: str = Field("tune", description="`tune`; the test split is for final figures only.")


class ExperimentBody(Body):
    """Pruning and retraining along a plan, with baselines of equal size and budget."""

    plan_id: Id
    schedule: Literal["one-shot", "iterative", "agp"] = "one-shot"
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    epochs: Annotated[int, Field(ge=1, le=1000)] = 10
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = Field(None, description="64.")
    learning_rate: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None = Field(
        None, description="null lets the worker choose."
    )
    distillation: bool = False
    baselines: list[Literal["uniform", "global-magnitude", "random"]] = [
        "uniform",
        "global-magnitude",
        "random",
    ]
    seed: Seed = 0
