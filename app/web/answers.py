"""The shapes of the answers, for /openapi.json.

The views build these as plain dictionaries: an analysis with ten thousand points is answered in
milliseconds, which a second validation of our own figures would cost again.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Status = Literal["importing", "ready", "failed"]
Priority = Literal["low", "normal", "high"]
State = Literal["queued", "running", "done", "failed", "cancelled"]


class Error(BaseModel):
    code: str
    message: str
    hint: str


class Problem(BaseModel):
    """RFC 9457. `detail` says what is wrong and what to do about it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str | None = None
    errors: list[dict[str, str]] | None = None


class Progress(BaseModel):
    """`samples`: evaluations of a sample so far, where they are counted."""

    done: float
    total: float
    eta: float | None
    samples: int | None = None


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


class Dataset(BaseModel):
    id: int
    name: str
    format: str
    sha256: str
    bytes: int
    status: Status
    error: Error | None
    task: str
    splits: dict[str, int]
    input_shape: list[int] | None
    classes: int | None
    options: dict[str, Any]
    details: dict[str, Any]
    job_id: int | None
    created_at: str


class Estimate(BaseModel):
    """`value` null: not defined here. `low` and `high` null: no interval is known."""

    value: float | None
    low: float | None
    high: float | None


class Metric(BaseModel):
    """`fraction`: from 0 to 1, shown in per cent."""

    name: str
    label: str
    higher_is_better: bool
    fraction: bool


class Judged(BaseModel):
    """`task`: what is predicted, found out when the baseline is measured. `metric`: the main one of
    `metrics`."""

    task: Literal["single-label", "multi-label", "per-position", "regression", "language-modelling"]
    metric: str
    metrics: list[Metric]


class Accuracy(BaseModel):
    """`accuracy` and its interval are null where answers are not right or wrong."""

    accuracy: float | None
    loss: float | None
    low: float | None
    high: float | None
    samples: int
    metrics: dict[str, Estimate]


class Arithmetic(BaseModel):
    """Where bfloat16 was asked for: what was computed in (`used`), and why not in bfloat16
    (`reason`). `differing` of `answers` of the first `samples` samples are other answers than the
    intact network gives in float32; null for numbers. `loss` and `loss_float32` are of these."""

    used: str
    reason: str | None
    samples: int
    answers: int
    differing: int | None
    loss: float | None
    loss_float32: float | None


class Dense(Accuracy):
    """The intact network. `arithmetic`: null in float32."""

    arithmetic: Arithmetic | None


class Point(Accuracy):
    """One measured point, known from `samples` of the `of` samples of the split.

    `whole`: from all of them; then counts are exact, and intervals are for the population that the
    split was drawn from (`interval` "population"). Otherwise figures are estimates for the split,
    and so are their intervals ("split"). `settled`: known as well as this analysis asked for.
    `preview`: from the first few samples only. `drop`: the intact network's accuracy less this one;
    for numbers, the rise of the mean squared error as a share of the variance; for language
    models, the rise of the loss. `kl`: the mean divergence from the intact network's outputs, in
    nats. `remark`: what is odd about it.
    """

    sparsity: float
    achieved: float
    of: int
    whole: bool
    interval: Literal["split", "population"]
    settled: bool
    preview: bool
    drop: float | None
    drop_low: float | None
    drop_high: float | None
    kl: float | None
    flips: int | None
    lost: int | None
    gained: int | None
    remark: str | None


class ClassCounts(BaseModel):
    """Samples of one class, and how many of them the intact and the pruned network get right.

    `class`: its number, from 0. `samples` are those that the point was measured on; while it is not
    whole, `dense` is null, because the intact network's count is of the whole split
    (`dense_samples`, `dense_right`).
    """

    class_: int
    name: str | None
    samples: int
    dense: int | None
    pruned: int
    dense_samples: int
    dense_right: int

    model_config = ConfigDict(alias_generator=lambda name: name.rstrip("_"))


class PointDetail(Point):
    unit: str
    criterion: str
    classes: list[ClassCounts]


class Compared(BaseModel):
    """The best and the second best criterion at one level of one unit, by their drops.

    `difference`: by how much the best is ahead, as a share of answers, with its interval; null
    where answers are not right or wrong. `p`: McNemar's mid-p on the `samples` that both were
    measured on. `significant`: larger than the noise.
    """

    unit: str
    sparsity: float
    best: str
    runner_up: str
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    samples: int | None
    significant: bool | None


class BestOfUnit(BaseModel):
    """`best`: the criterion with the smallest mean drop over the levels where all are known.

    `significant`: ahead of the second best by more than the noise at one level at least, and
    nowhere behind by more. `drops`: the mean drop of each.
    """

    unit: str
    best: str
    significant: bool
    drops: dict[str, float]
    levels: int


class Comparison(BaseModel):
    items: list[Compared]
    units: list[BestOfUnit]


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


class Criterion(BaseModel):
    """`needs`: `nothing`, `inputs` (samples of train), `gradients` (with labels), `unknown`."""

    name: str
    title: str
    description: str
    source: str
    needs: str
    rewrites: bool


class CriterionList(BaseModel):
    items: list[Criterion]


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


class Subject(BaseModel):
    kind: str
    id: int


class Job(BaseModel):
    id: int
    kind: str
    state: State
    attempt: int
    max_attempts: int
    progress: Progress
    error: Error | None
    subject: Subject | None
    analysis_id: int | None
    label: str
    cancel_requested: bool
    paused: bool
    priority: Priority
    created_at: str
    started_at: str | None
    finished_at: str | None


class ModelList(BaseModel):
    items: list[ModelSummary]
    next_cursor: str | None


class DatasetList(BaseModel):
    items: list[Dataset]
    next_cursor: str | None


class AnalysisList(BaseModel):
    items: list[AnalysisSummary]
    next_cursor: str | None


class PlanList(BaseModel):
    items: list[Plan]
    next_cursor: str | None


class ExperimentList(BaseModel):
    items: list[ExperimentSummary]
    next_cursor: str | None


class JobList(BaseModel):
    items: list[Job]
    next_cursor: str | None


class Health(BaseModel):
    status: Literal["ok", "degraded"]
    database: Literal["ok", "failed"]
    workers: int
    isolation: dict[str, int]
    queue: dict[str, int]


def answers(
    model: type[BaseModel] | None, status: int = 200, *problems: int
) -> dict[int | str, Any]:
    """`responses=` of a route: what it answers, and the problems it may answer instead."""
    described: dict[int | str, Any] = {status: {"model": model} if model else {}}
    for code in (401, *problems):
        described[code] = {
            "description": "Problem",
            "content": {"application/problem+json": {"schema": {"$ref": PROBLEM_REFERENCE}}},
        }
    return described


PROBLEM_REFERENCE = "#/components/schemas/Problem"
