"""What a network is judged by: the parts that every kind of task shares."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor, fx

from app.domain.estimates import UNDEFINED, Estimate, figures
from app.domain.metrics import METRICS, Kind
from app.domain.statistics import DEFAULT_CONFIDENCE

if TYPE_CHECKING:
    from worker.engine.objectives.divergence import Reference
    from worker.engine.objectives.states import State

UNDECIDED = -1
"""The class of an answer whose outputs contain NaN: never right, and equal only to itself."""

IGNORED = -100
"""The label of a position that isn't judged (torch's cross-entropy's own default)."""

MOST_CLASSES = 1000
"""With more classes than this there are no counts by class."""

_IN_MEMORY_BYTES = 128 * 2**20


@dataclass(frozen=True)
class ByClass:
    """Answers by their true class, int64 [classes] each: how many there are, and are right."""

    seen: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """Figures of one network on one split.

    An answer is what can be right or wrong: a sample's class (single-label), one label of a sample
    (multi-label), one position that isn't ignored (per-position, language-modelling). `correct`,
    `flips`, `lost` and `gained` count answers, out of `answers` (None: as many as samples): those
    that are right, that differ from the dense network's, that only the dense network gets right,
    and that only this one gets right. None for regression, and the last three where no dense
    network was at hand. `loss` is the mean over answers (numbers, for regression) that training
    lowers, in nats but for regression; None when it isn't finite. `estimates` holds what the kind's
    tally found, by metric.

    `kl` is the mean over answers of the Kullback-Leibler divergence of this network's predictions
    from the dense network's, in nats. None for regression, where the dense outputs were not at
    hand for every batch, and when it isn't finite. `by_class` is known for a class a sample or a
    position, up to MOST_CLASSES of them.
    """

    samples: int
    correct: int | None
    loss: float | None
    flips: int | None = None
    lost: int | None = None
    gained: int | None = None
    answers: int | None = None
    kind: Kind = Kind.SINGLE_LABEL
    estimates: Mapping[str, Estimate] = field(default_factory=dict, compare=False, repr=False)
    kl: float | None = field(default=None, compare=False)
    by_class: ByClass | None = field(default=None, compare=False, repr=False)

    @property
    def judged(self) -> int:
        """The number of answers."""
        return self.samples if self.answers is None else self.answers

    @property
    def accuracy(self) -> float | None:
        """The share of answers that are right; None for regression."""
        if self.correct is None:
            return None
        return self.correct / self.judged if self.judged else 0.0

    def metric(self, name: str) -> float | None:
        """A metric's value by its name in `app.domain.metrics`; None where undefined."""
        return figures({name: self.estimates.get(name, UNDEFINED)})[name]["value"]

    def as_json(self, confidence: float = DEFAULT_CONFIDENCE) -> dict[str, Any]:
        """All figures as finite numbers, `low` and `high` being those of the accuracy.

        `metrics` has `{"value", "low", "high"}` for every metric of the kind, None where undefined.
        """
        metrics = figures(
            {m.name: self.estimates.get(m.name, UNDEFINED) for m in METRICS[self.kind]}, confidence
        )
        accuracy = metrics.get("accuracy", {"low": None, "high": None})
        return {
            "kind": self.kind.value,
            "samples": self.samples,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "low": accuracy["low"],
            "high": accuracy["high"],
            "loss": self.loss,
            "kl": self.kl,
            "flips": self.flips,
            "lost": self.lost,
            "gained": self.gained,
            "metrics": metrics,
        }


@dataclass(frozen=True)
class Judged:
    """What a tally found in one batch for each network (row).

    `answers` [rows, batch, ...] as `Objective.answers` has them. `hits` bool, of their shape: the
    right ones, ignored positions being none; None for regression. `losses` float64 [rows, batch]:
    summed over the answers of a sample (regression: squared errors over its numbers), not finite
    where outputs aren't. `divergences` float64 [rows, batch]: KL(dense || row) in nats summed over
    the answers; None for regression and without a reference.
    """

    answers: np.ndarray
    hits: np.ndarray | None
    losses: np.ndarray
    divergences: np.ndarray | None


class Tally(Protocol):
    """Adds up the figures of several networks (rows) over the batches of a split.

    Rows are independent of each other: they may see different samples.
    """

    def judge(
        self,
        outputs: Tensor,
        labels: Tensor,
        dense: np.ndarray | None,
        first: int = 0,
        reference: Reference | None = None,
    ) -> Judged:
        """Add one batch: outputs [rows, batch, ...] as the objective gives them, their labels.

        The rows are those from `first` on. `dense` are the dense network's answers [batch, ...],
        `reference` what `Objective.reference` made of its outputs. Figures are computed a sample in
        float64 and summed a row, so that they don't depend on the rows beside it.
        """
        ...

    def add(
        self, outputs: Tensor, labels: Tensor, dense: np.ndarray | None, first: int = 0
    ) -> np.ndarray:
        """`judge` without a reference; only the answers [rows, batch, ...]."""
        ...

    def state(self, row: int) -> dict[str, np.ndarray]:
        """What the figures of one row are computed from, for `restore`."""
        ...

    def evaluation(self, row: int) -> Evaluation: ...


class Objective(Protocol):
    """How outputs become figures and a loss, for one kind of task and one shape of output.

    `row_bytes` is roughly what a tally keeps for one row. `steepness` (1 or more) says by how much
    the loss may curve more than a cross-entropy; the search for a learning rate begins lower by it.
    """

    @property
    def kind(self) -> Kind: ...

    @property
    def row_bytes(self) -> int: ...

    @property
    def steepness(self) -> float: ...

    def outputs(self, output: Any, labels: Tensor) -> Tensor:
        """What is judged, [batch, ...], out of what the network returns for `labels` [batch, ...].

        Without the filling of a fixed batch. Raises InputMismatch when it isn't of the form that
        the objective was chosen for.
        """
        ...

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The mean loss over the answers of a batch, differentiable, for training."""
        ...

    def tally(self, rows: int) -> Tally: ...

    def restore(self, states: Sequence[State]) -> Tally:
        """A tally with one row for each state, which it goes on from.

        Bit for bit that of which the states are. Raises InvalidInput for those of another kind.
        """
        ...

    def reference(self, outputs: Tensor, labels: Tensor) -> Reference:
        """What the dense network's outputs [batch, ...] say of one batch, made once for all."""
        ...

    def counts(self, labels: Tensor) -> np.ndarray:
        """How many answers each sample has (regression: numbers), int64 [batch]."""
        ...

    def answers(self, samples: int) -> np.ndarray:
        """Room for the answers of so many samples, as `Tally.judge` gives them."""
        ...


@dataclass(frozen=True)
class Predictions:
    """The answers of every sample as `Objective.answers` shapes them, and the figures.

    Single-label: the class, int64 [samples]. UNDECIDED where outputs are NaN.
    """

    classes: np.ndarray
    evaluation: Evaluation


def room(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array in memory, or in a temporary file when it would be large."""
    if int(np.prod(shape)) * np.dtype(dtype).itemsize <= _IN_MEMORY_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def class_dtype(classes: int) -> type[np.signedinteger[Any]]:
    """The smallest type for classes and UNDECIDED."""
    if classes <= 2**7:
        return np.int8
    return np.int16 if classes <= 2**15 else np.int32


def first_tensor(output: Any) -> Any:
    """The tensor (or graph node) a network predicts with, out of a nested output.

    `logits` of a dict that has one, as transformers' outputs do; otherwise the first tensor.
    """
    if isinstance(output, (Tensor, fx.Node)):
        return output
    if isinstance(output, dict):
        output = [output["logits"], *output.values()] if "logits" in output else output.values()
        output = list(output)
    if isinstance(output, (list, tuple)):
        for part in output:
            found = first_tensor(part)
            if found is not None:
                return found
    return None
