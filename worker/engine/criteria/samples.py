"""Which samples of `train` a criterion sees: few, seeded, every class in its share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx

from worker.engine.batches import evaluating
from worker.engine.formats.splits import stratified_take
from worker.engine.formats.splitting import at_random, by_target

if TYPE_CHECKING:
    from worker.engine.formats.splits import Split
    from worker.engine.graph import CanonicalModel

MOST_SAMPLES = 1024
_FEWEST = 128
_MACS = 2**39
_WEIGHTS = 2**34
_ACTIVATION_BYTES = 128 * 2**20
_LARGEST_BATCH = 64


def sample_count(model: CanonicalModel) -> int:
    """How many samples are enough and affordable: 1,024, for large networks fewer, down to 128.

    From sizes alone (multiply-accumulates and weights), so that it is the same everywhere.
    """
    macs = 3 * sum(layer.macs for layer in getattr(model, "layers", ()))
    weights = sum(parameter.numel() for parameter in model.module.parameters())
    affordable = min(_MACS // max(1, macs), _WEIGHTS // max(1, weights))
    return min(MOST_SAMPLES, max(_FEWEST, affordable))


def sample_rows(train: Split, total: int, seed: int) -> np.ndarray:
    """About `total` positions of the split, ascending: all of a smaller split.

    Every class has its share (every decile of the target, where one number is predicted); samples
    with several labels are drawn without regard to them.
    """
    if len(train) <= total:
        return np.arange(len(train))
    labels = train.labels
    if labels.ndim == 1 and labels.dtype.kind in "iub":
        groups = np.asarray(labels).astype(np.int64)
    elif labels.dtype.kind == "f" and labels.size == len(train):
        groups = by_target(np.asarray(labels).reshape(-1)).groups
    else:
        groups = at_random(len(train)).groups
    assert groups is not None
    return stratified_take(groups, np.arange(len(train)), total, seed)


def batches_of(
    model: CanonicalModel, train: Split, rows: np.ndarray, size: int
) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """The samples at these positions, `size` at a time; inputs in the model's dtypes.

    A model that runs at one batch size only gets full batches: positions are left out at the end,
    or taken again from the start where there are fewer than one batch of them.
    """
    if model.fixed_batch is not None:
        full = max(1, len(rows) // size)
        rows = np.resize(rows, full * size)
    split = train.cast([spec.dtype for spec in model.inputs])
    for start in range(0, len(rows), size):
        inputs, labels = split.gather(rows[start : start + size])
        # Matrix libraries may round differently on unaligned memory; torch's own is aligned.
        yield tuple(x.clone() if x.data_ptr() % 64 else x for x in inputs), labels


def streamed(model: CanonicalModel, rows: np.ndarray, size: int) -> int:
    """How many samples `batches_of` gives."""
    return len(rows) if model.fixed_batch is None else max(1, len(rows) // size) * size


def training_batch(model: CanonicalModel, train: Split) -> int:
    """The batch size of a pass that keeps activations for their gradients, from shapes alone."""
    if model.fixed_batch is not None:
        return model.fixed_batch
    probe = min(2, len(train))
    inputs, _ = next(batches_of(model, train, np.arange(probe), probe))
    measure = _Kept(model.module)
    with evaluating(model), torch.no_grad():
        measure.run(*inputs)
    return max(1, min(_LARGEST_BATCH, _ACTIVATION_BYTES * probe // max(1, measure.total)))


class _Kept(fx.Interpreter):
    """Runs a graph once and adds up the bytes of all that its nodes give."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.total = 0

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op not in ("get_attr", "output"):
            parts = result if isinstance(result, (list, tuple)) else [result]
            self.total += sum(
                part.numel() * part.element_size() for part in parts if isinstance(part, Tensor)
            )
        return result


@contextmanager
def one_thread() -> Iterator[None]:
    """A single thread for the time of a block.

    Sums are then made in one order however many threads the process has otherwise: a checkpoint
    made by another process has exactly the weights that were analysed.
    """
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)
