"""What a network scores: figures with their intervals, dense, pruned, by class."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


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
