"""Batch-norm statistics estimated anew, for a network whose weights were changed.

Pruning shifts the means and variances that batch norms were fitted to; judged with the old ones,
networks look far worse than they are and rank wrongly. The statistics are reset and averaged over
batches of `train`, every batch with the same weight, as Izmailov et al. ("Averaging Weights Leads
to Wider Optima and Better Generalization", 2018, section 3.2) do and `torch.optim.swa_utils
.update_bn` computes; but only batch norms are in training mode, so that no dropout takes part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from app.domain.errors import InvalidInput, Stopped
from worker.engine.batches import default_batch_size, evaluating, require_samples
from worker.engine.formats.splits import shuffled

if TYPE_CHECKING:
    from worker.engine.formats.splits import Split
    from worker.engine.graph import CanonicalModel

MAX_SAMPLES, MAX_BATCHES, BATCH = 1024, 100, 128
"""At most so many samples of `train`, in at most so many batches, of at most so many samples. Part
of what a point measured with them is: another number is another engine version.

Every cell needs a pass over them. On a ResNet-20 (CIFAR-10) with one of four layers pruned to 70 or
90 %, accuracies by four draws have a standard deviation of 0.6 points with 256 samples, 0.4 with
512, 0.2 with 1,024 and 0.2 with 2,048; their means from 1,024 on differ by 0.1 point on average.
"""

_DRAW = 0xBA7C
_FUNCTIONAL = frozenset(["batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training"])


@dataclass(frozen=True)
class LayerStatistics:
    """What one batch norm is to have: mean and variance [channels], and of how many batches."""

    layer: _BatchNorm
    mean: Tensor
    variance: Tensor
    batches: int

    @classmethod
    def of(cls, layer: _BatchNorm) -> LayerStatistics:
        """A copy of what the layer has now."""
        seen = layer.num_batches_tracked
        return cls(
            layer,
            _tensor(layer.running_mean).detach().clone(),
            _tensor(layer.running_var).detach().clone(),
            0 if seen is None else int(seen),
        )

    @property
    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """The layer's buffers, each with what it is to hold."""
        pairs = [
            (_tensor(self.layer.running_mean), self.mean),
            (_tensor(self.layer.running_var), self.variance),
        ]
        if self.layer.num_batches_tracked is not None:
            pairs.append((self.layer.num_batches_tracked, torch.tensor(self.batches)))
        return pairs


class Statistics:
    """Statistics of some batch norms of one network, in it or beside it.

    `apply` writes them into the network's buffers, in place, and `restore` puts back, bit for bit,
    what was there; each does nothing when it is done already. As a context manager they are in
    force within the block.
    """

    def __init__(
        self, layers: Sequence[LayerStatistics], before: Sequence[LayerStatistics] | None = None
    ) -> None:
        """`before`: what to bring back, where `layers` are in force already."""
        self.layers = tuple(layers)
        pairs = [pair for each in self.layers for pair in each.pairs]
        # Cells of small networks are set hundreds of times a second: as few calls as can be.
        self._buffers = [buffer for buffer, _ in pairs]
        self._values = [value for _, value in pairs]
        self._before = None if before is None else [v for each in before for _, v in each.pairs]
        self._applied = before is not None

    @property
    def applied(self) -> bool:
        return self._applied

    @property
    def buffers(self) -> list[Tensor]:
        """The network's tensors that `apply` and `restore` change, counts of batches left out."""
        return [buffer for buffer in self._buffers if buffer.is_floating_point()]

    def apply(self) -> None:
        if self._applied:
            return
        with torch.no_grad():
            if self._before is None:
                # Tensors of inference mode could not be written to outside of it.
                with torch.inference_mode(False):
                    self._before = [buffer.detach().clone() for buffer in self._buffers]
            else:
                _copy(self._before, self._buffers)
            _copy(self._buffers, self._values)
        self._applied = True

    def restore(self) -> None:
        if self._applied and self._before is not None:
            with torch.no_grad():
                _copy(self._buffers, self._before)
        self._applied = False

    def __enter__(self) -> Self:
        self.apply()
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()


def _copy(into: list[Tensor], values: list[Tensor]) -> None:
    if into:
        torch._foreach_copy_(into, values)


def _tensor(buffer: Tensor | None) -> Tensor:
    assert buffer is not None
    return buffer


def batch_norms(model: CanonicalModel) -> dict[str, _BatchNorm]:
    """The batch norms of the graph that keep statistics, by module path, each once, as they run."""
    found: dict[str, _BatchNorm] = {}
    for node in model.module.graph.nodes:
        if node.op == "call_module":
            layer = model.module.get_submodule(str(node.target))
            if not isinstance(layer, _BatchNorm) or layer.running_mean is None:
                continue
            if all(layer is not other for other in found.values()):
                found[str(node.target)] = layer
    return found


def has_batch_norm(model: CanonicalModel) -> bool:
    """Whether there is anything to re-estimate."""
    return bool(batch_norms(model))


def left_alone(model: CanonicalModel) -> list[str]:
    """Where batch norms with statistics are called as bare operators, which stay as they are.

    Paths of the modules that call them. The canonical form makes modules of batch norms wherever
    the tensors hang at one path under their usual names.
    """
    found: dict[str, None] = {}
    for node in model.module.graph.nodes:
        if node.op != "call_function":
            continue
        name = getattr(node.target, "_opname", None) or getattr(node.target, "__name__", "")
        statistics = node.args[3:5] if len(node.args) >= 5 else list(node.kwargs.values())
        if name.split(".")[0] in _FUNCTIONAL and any(s is not None for s in statistics):
            found.setdefault(str(node.meta.get("path") or node.name))
    return list(found)


def remarks(model: CanonicalModel) -> list[str]:
    """Sentences for people about what re-estimation will not do for this network."""
    left = left_alone(model)
    if left:
        listed = ", ".join(left[:5]) + (", …" if len(left) > 5 else "")
        return [f"Batch norms called as functions keep their stored statistics: {listed}."]
    if not has_batch_norm(model):
        return ["The network has no batch norm with statistics: nothing is re-estimated."]
    return []


def calibration_rows(
    samples: int, seed: int, *, size: int = BATCH, fixed: bool = False
) -> list[np.ndarray]:
    """Positions in `train` of each calibration batch: a seeded draw without repetition.

    Batches are as even as can be, for each counts the same; `size` is what none exceeds. A network
    of one batch size (`fixed`) gets full batches only, filled up by starting over where there are
    too few samples for one.
    """
    taken = min(samples, MAX_SAMPLES, MAX_BATCHES * size)
    order = shuffled(samples, seed, _DRAW)[:taken]
    if fixed:
        whole = max(1, taken // size)
        return np.split(np.resize(order, whole * size), whole)
    return np.array_split(order, -(-taken // size))


class Calibration:
    """The calibration batches of one network, split and seed, read anew whenever they are run."""

    def __init__(self, model: CanonicalModel, train: Split, seed: int) -> None:
        samples = require_samples(train)
        fixed = model.fixed_batch
        size = fixed or min(BATCH, default_batch_size(model, train))
        self._rows = calibration_rows(samples, seed, size=size, fixed=fixed is not None)
        self._train = train.cast([spec.dtype for spec in model.inputs])

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def samples(self) -> int:
        return sum(len(rows) for rows in self._rows)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """The inputs of each batch."""
        for rows in self._rows:
            yield self._train.gather(rows)[0]


def recalibrate(
    model: CanonicalModel,
    train: Split,
    *,
    seed: int,
    should_stop: Callable[[], bool] | None = None,
) -> Statistics:
    """Re-estimate the statistics of all batch norms with the weights as they are, in place.

    One pass over the calibration batches. What comes back is in force; its `restore()` brings back
    the statistics from before. Nothing happens in a network without batch norm. Raises Stopped
    (the old statistics are back then), InvalidInput for a split that is empty or too small.
    """
    layers = batch_norms(model)
    before = [LayerStatistics.of(layer) for layer in layers.values()]
    if not layers:
        return Statistics([], [])
    batches = Calibration(model, train, seed)
    try:
        with evaluating(model), _estimating(layers), torch.no_grad(), said_simply(len(train)):
            for inputs in batches:
                if should_stop is not None and should_stop():
                    raise Stopped(
                        "The computation was stopped.", "Start it again; what is known is kept."
                    )
                model.module(*inputs)
    except BaseException:
        Statistics(before, before).restore()
        raise
    after = [LayerStatistics.of(layer) for layer in layers.values()]
    return Statistics(after, before)


@contextmanager
def _estimating(layers: Mapping[str, _BatchNorm]) -> Iterator[None]:
    """Reset these batch norms and let them average over what they see within the block."""
    momenta = {path: layer.momentum for path, layer in layers.items()}
    for layer in layers.values():
        layer.reset_running_stats()
        layer.momentum = None
        layer.training = True
    try:
        yield
    finally:
        for path, layer in layers.items():
            layer.momentum = momenta[path]
            layer.training = False


@contextmanager
def said_simply(samples: int) -> Iterator[None]:
    """Raises InvalidInput in place of torch's complaint about batches of one number a channel."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InvalidInput(
            "Batch norm can't be re-estimated from batches with a single number for each channel.",
            "Add more training samples."
            if samples < 2
            else "Export the network with a free batch dimension.",
        ) from error
