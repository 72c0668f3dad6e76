"""Request bodies. Unknown fields are named rather than ignored; numbers are numbers, not texts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_LEVELS = 200
MAX_UNITS = 100_000
MAX_REFINE = 20
MAX_NAME = 200
MAX_SEED = 2**31 - 1

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
UnitName = Annotated[str, Field(min_length=1, max_length=1000)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class EvaluationBody(Body):
    """How much of the tune split each point is measured on. Everything has a default.

    `adaptive`: until the drop's interval is narrow enough. `exact`: every sample. `knee`: only what
    tells the largest sparsity of each unit whose drop stays within `tolerance`.
    """

    mode: Literal["adaptive", "exact", "knee"] | None = Field(None, description="adaptive.")
    half_width: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="How narrow is enough: half the width of a drop's interval; 0.01."
    )
    relative: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Or this share of the drop, whichever is more; 0.1."
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1)] | None = Field(None, description="0.95.")
    tolerance: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="The drop that is tolerated: where knees are; 0.01."
    )
    method: Literal["looks", "sequence"] | None = Field(
        None,
        description="`looks` splits the error over looks; `sequence` is valid whatever happens.",
    )
    precision: Literal["float32", "bfloat16"] | None = Field(None, description="float32.")
    refine: Annotated[int, Field(ge=0, le=MAX_REFINE)] | None = Field(
        None, description="Further levels of each unit, where the tolerated drop is; 0."
    )


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
    priority: Literal["low", "normal", "high"] = "normal"


class SharpenBody(Body):
    """What of an analysis is to become sharper, and how sharp: `half_width`, or `exact`."""

    units: Annotated[list[UnitName], Field(min_length=1, max_length=MAX_UNITS)] | None = Field(
        None, description="Ids of units; by default all of the analysis."
    )
    sparsities: Annotated[list[Fraction], Field(min_length=2, max_length=2)] | None = Field(
        None, description="[lowest, highest]; by default all."
    )
    half_width: Annotated[float, Field(gt=0, lt=1)] | None = None
    exact: bool = False


class PriorityBody(Body):
    priority: Literal["low", "normal", "high"]


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
