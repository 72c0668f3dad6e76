"""Figures of a whole network on a split, and the batches every exact figure is measured in.

Floating-point results depend on how samples are grouped into batches. Everything that is compared
(dense network, cells, plans) therefore uses the one partition that `batch_bounds` gives, whose size
follows from shapes only, never from timing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional

from app.domain.errors import InputMismatch, InvalidInput, Stopped
from worker.engine.masks import MaskSet

if TYPE_CHECKING:
    from worker.engine.formats.datasets import Split
    from worker.engine.graph import CanonicalModel

UNDECIDED = -1
"""The class of a sample whose outputs contain NaN: never right, and equal only to itself."""

_WORKING_SET_BYTES = 12 * 2**20
_LIVE_BYTES = 256 * 2**20
_SMALLEST_BATCH, _LARGEST_BATCH = 32, 512


@dataclass(frozen=True)
class Evaluation:
    """Figures of one network on one split.

    `loss` is the mean cross-entropy in nats, None when the loss of any sample is not finite.
    `flips` counts samples whose class differs from the dense network's, `lost` those that only the
    dense network gets right, `gained` those that only this one gets right; None where no dense
    network was at hand.
    """

    samples: int
    correct: int
    loss: float | None
    flips: int | None = None
    lost: int | None = None
    gained: int | None = None

    @property
    def accuracy(self) -> float:
        return self.correct / self.samples if self.samples else 0.0


@dataclass(frozen=True)
class Predictions:
    """The class of every sample (int64 [samples], UNDECIDED where outputs are NaN) and figures."""

    classes: np.ndarray[Any, np.dtype[np.int64]]
    evaluation: Evaluation


class Tally:
    """Adds up the figures of several networks (rows) over the batches of a split."""

    def __init__(self, rows: int) -> None:
        self._samples = np.zeros(rows, dtype=np.int64)
        self._loss = np.zeros(rows)
        self._counts = np.zeros((4, rows), dtype=np.int64)
        self._paired = True

    def add(
        self, logits: Tensor, labels: Tensor, dense: np.ndarray | None, first: int = 0
    ) -> np.ndarray:
        """Add one batch: logits [rows, batch, classes], labels [batch], dense classes [batch].

        The rows are those from `first` on. Returns the classes [rows, batch]. The loss is computed
        per sample in float64 and summed per row, so that a row's figures don't depend on the rows
        beside it.
        """
        rows, batch, width = logits.shape
        own = slice(first, first + rows)
        values = logits.reshape(rows * batch, width).double()
        losses = functional.cross_entropy(values, labels.repeat(rows), reduction="none")
        classes = values.argmax(1)
        if not bool(torch.isfinite(losses).all()):
            classes[values.isnan().any(1)] = UNDECIDED
        predicted = classes.numpy().reshape(rows, batch)
        with np.errstate(all="ignore"):
            self._loss[own] += losses.numpy().reshape(rows, batch).sum(axis=1)
        self._samples[own] += batch
        truth = labels.numpy()
        right = predicted == truth
        self._counts[0, own] += right.sum(axis=1)
        if dense is None:
            self._paired = False
        else:
            was_right = dense == truth
            self._counts[1, own] += (predicted != dense).sum(axis=1)
            self._counts[2, own] += (was_right & ~right).sum(axis=1)
            self._counts[3, own] += (right & ~was_right).sum(axis=1)
        return predicted

    def evaluation(self, row: int) -> Evaluation:
        correct, flips, lost, gained = (int(count) for count in self._counts[:, row])
        samples = int(self._samples[row])
        loss = float(self._loss[row]) / samples if samples else 0.0
        return Evaluation(
            samples=samples,
            correct=correct,
            loss=loss if np.isfinite(loss) else None,
            flips=flips if self._paired else None,
            lost=lost if self._paired else None,
            gained=gained if self._paired else None,
        )


def batch_bounds(samples: int, batch_size: int) -> list[tuple[int, int]]:
    """`(start, stop)` of consecutive batches; only the last may be smaller."""
    return [(at, min(at + batch_size, samples)) for at in range(0, samples, batch_size)]


def load_batch(
    model: CanonicalModel, split: Split, start: int, stop: int
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Inputs as the model takes them and int64 labels [stop - start].

    Inputs come in the model's dtypes. A model that runs at one batch size only gets its last
    batch filled up with copies of the last sample; the labels are not.
    """
    arrays, labels = split.cast([spec.dtype for spec in model.inputs]).batch(start, stop)
    inputs = []
    for array in arrays:
        tensor = array
        if model.fixed_batch is not None and tensor.shape[0] < model.fixed_batch:
            filling = tensor[-1:].expand(model.fixed_batch - tensor.shape[0], *tensor.shape[1:])
            tensor = torch.cat([tensor, filling])
        if tensor.data_ptr() % 64:
            # Matrix libraries may round differently on unaligned memory; torch's own is aligned.
            tensor = tensor.clone()
        inputs.append(tensor)
    return tuple(inputs), labels


def first_tensor(output: Any) -> Any:
    """The first tensor (or graph node) of a nested output: what a network predicts with."""
    if isinstance(output, (Tensor, fx.Node)):
        return output
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        for part in output:
            found = first_tensor(part)
            if found is not None:
                return found
    return None


def class_logits(output: Any, labels: Tensor) -> Tensor:
    """The logits [batch, classes] of a network's output, without the filling of a fixed batch.

    Raises InputMismatch when the output is not of that form or a label has no class.
    """
    logits = first_tensor(output)
    count = labels.shape[0]
    if logits is None or logits.dim() != 2 or logits.shape[0] < count:
        shape = "no tensor" if logits is None else f"shape {tuple(logits.shape)}"
        raise InputMismatch(
            f"The model's output has {shape}; classification needs [batch, classes].",
            "Export the network so that its first output is one row of logits a sample.",
        )
    low, high = (int(labels.min()), int(labels.max())) if count else (0, -1)
    if low < 0 or high >= logits.shape[1]:
        raise InputMismatch(
            f"Labels go from {low} to {high}, but the model knows {logits.shape[1]} classes.",
            "Number the classes from 0, and use a model with as many outputs as classes.",
        )
    return logits[:count]


class _Sizes(fx.Interpreter):
    """Runs a graph once and notes the bytes of its activations.

    `largest` is what one node reads and writes at most, `live` what is alive at once at most.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.largest = 0
        self.live = 0

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op not in ("get_attr", "output"):
            read = sum(_bytes(self.env[i]) for i in n.all_input_nodes if i.op != "get_attr")
            self.largest = max(self.largest, _bytes(result) + read)
            others = sum(_bytes(value) for node, value in self.env.items() if node.op != "get_attr")
            self.live = max(self.live, _bytes(result) + others)
        return result


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, (list, tuple)):
        return sum(_bytes(part) for part in value)
    return 0


def default_batch_size(model: CanonicalModel, split: Split) -> int:
    """The batch size for this model and split, from the shapes of activations alone.

    Big enough that the cost of dispatching operators is spread over many samples, small enough
    that a node's inputs and outputs stay near the processor's cache and that what is alive at once
    fits in memory. Batches are evened out, so that no small one is left at the end.
    """
    samples = len(split)
    if model.fixed_batch is not None:
        return model.fixed_batch
    if samples == 0:
        return 1
    probe = min(2, samples)
    inputs, _ = load_batch(model, split, 0, probe)
    sizes = _Sizes(model.module)
    with evaluating(model), torch.no_grad():
        sizes.run(*inputs)
    size = max(_SMALLEST_BATCH, _WORKING_SET_BYTES * probe // max(1, sizes.largest))
    size = min(size, _LARGEST_BATCH, max(1, _LIVE_BYTES * probe // max(1, sizes.live)))
    count = -(-samples // size)
    return -(-samples // count)


@contextmanager
def evaluating(model: CanonicalModel) -> Iterator[None]:
    """Evaluation mode for the time of a `with` block."""
    training = model.module.training
    model.train_mode(False)
    try:
        yield
    finally:
        if training:
            model.train_mode(True)


def require_samples(split: Split) -> int:
    """The number of samples. Raises InvalidInput for an empty split."""
    samples = len(split)
    if samples == 0:
        raise InvalidInput(
            f"The split {split.name!r} has no samples.", "Use a split with at least one sample."
        )
    return samples


def evaluate(
    model: CanonicalModel,
    split: Split,
    *,
    masks: MaskSet | None = None,
    reference: Predictions | None = None,
    batch_size: int | None = None,
    on_progress: Callable[[float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Evaluation:
    """Run the whole network on a split: plain forward calls, nothing reused.

    `masks` are applied for the time of the call and every weight's bits restored. `reference`
    (the dense network's predictions on the same split) gives flips, lost and gained. Raises
    Stopped between batches when `should_stop()` turns true.
    """
    return _predict(model, split, masks, reference, batch_size, on_progress, should_stop).evaluation


def dense_predictions(
    model: CanonicalModel,
    split: Split,
    *,
    batch_size: int | None = None,
    on_progress: Callable[[float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Predictions:
    """The network's predictions as it is, with its figures (paired with itself: no flips)."""
    found = _predict(model, split, None, None, batch_size, on_progress, should_stop)
    figures = found.evaluation
    paired = Evaluation(figures.samples, figures.correct, figures.loss, 0, 0, 0)
    return Predictions(found.classes, paired)


def _predict(
    model: CanonicalModel,
    split: Split,
    masks: MaskSet | None,
    reference: Predictions | None,
    batch_size: int | None,
    on_progress: Callable[[float], None] | None,
    should_stop: Callable[[], bool] | None,
) -> Predictions:
    samples = require_samples(split)
    size = model.fixed_batch or batch_size or default_batch_size(model, split)
    classes = np.empty(samples, dtype=np.int64)
    tally = Tally(1)
    with evaluating(model), masks.applied(model) if masks else nullcontext():
        for start, stop in batch_bounds(samples, size):
            if should_stop is not None and should_stop():
                raise Stopped("The evaluation was stopped.", "Start it again to measure it.")
            inputs, labels = load_batch(model, split, start, stop)
            with torch.inference_mode():
                logits = class_logits(model.module(*inputs), labels)
                dense = reference.classes[start:stop] if reference else None
                classes[start:stop] = tally.add(logits.unsqueeze(0), labels, dense)[0]
            if on_progress is not None:
                on_progress(stop / samples)
    return Predictions(classes, tally.evaluation(0))
