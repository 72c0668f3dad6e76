"""What a network is judged by: the parts that every kind of task shares."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor, fx

from app.domain.estimates import UNDEFINED, Estimate, figures
from app.domain.metrics import METRICS, Kind
from app.domain.statistics import DEFAULT_CONFIDENCE

UNDECIDED = -1
"""The class of an answer whose outputs contain NaN: never right, and equal only to itself."""

IGNORED = -100
"""The label of a position that isn't judged (torch's cross-entropy's own default)."""

_IN_MEMORY_BYTES = 128 * 2**20


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
            "flips": self.flips,
            "lost": self.lost,
            "gained": self.gained,
            "metrics": metrics,
        }


class Tally(Protocol):
    """Adds up the figures of several networks (rows) over the batches of a split."""

    def add(
        self, outputs: Tensor, labels: Tensor, dense: np.ndarray | None, first: int = 0
    ) -> np.ndarray:
        """Add one batch: outputs [rows, batch, ...] as the objective gives them, their labels.

        The rows are those from `first` on; row 0 has its turn in every batch. `dense` are the dense
        network's answers [batch, ...]. Returns the answers [rows, batch, ...]. Figures are computed
        a sample in float64 and summed a row, so that they don't depend on the rows beside it.
        """
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

    def answers(self, samples: int) -> np.ndarray:
        """Room for the answers of so many samples, as `Tally.add` gives them."""
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
