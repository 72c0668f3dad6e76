"""The batches every exact figure is measured in.

Floating-point results depend on how samples are grouped into batches. Everything that is compared
(dense network, cells, plans) therefore uses the one partition that `batch_bounds` gives, whose size
follows from shapes only, never from timing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from app.domain.errors import InvalidInput

if TYPE_CHECKING:
    from worker.engine.formats.datasets import Split
    from worker.engine.graph import CanonicalModel

_WORKING_SET_BYTES = 12 * 2**20
_LIVE_BYTES = 256 * 2**20
_SMALLEST_BATCH, _LARGEST_BATCH = 32, 512
_HEAVY_BYTES, _FEW_ROWS, _HEAVY_BATCH = 4 * 2**20, 16, 128
"""A weight of so many bytes that meets few rows a sample is fetched from memory for each batch
anew: ResNet-18 at 64 px takes an eighth less time in batches of 128 than of 32."""


def batch_bounds(samples: int, batch_size: int) -> list[tuple[int, int]]:
    """`(start, stop)` of consecutive batches; only the last may be smaller."""
    return [(at, min(at + batch_size, samples)) for at in range(0, samples, batch_size)]


def load_batch(
    model: CanonicalModel, split: Split, start: int, stop: int
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Inputs as the model takes them and the labels [stop - start, ...] as the split gives them.

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


class _Sizes(fx.Interpreter):
    """Runs a graph once and notes the bytes of its activations.

    `largest` is what one node reads and writes at most, `live` what is alive at once at most.
    `heavy`: some weight is large beside the rows that it meets.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.largest = 0
        self.live = 0
        self.heavy = False

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op not in ("get_attr", "output"):
            read = sum(_bytes(self.env[i]) for i in n.all_input_nodes if i.op != "get_attr")
            self.largest = max(self.largest, _bytes(result) + read)
            others = sum(_bytes(value) for node, value in self.env.items() if node.op != "get_attr")
            self.live = max(self.live, _bytes(result) + others)
            self.heavy = self.heavy or self._is_heavy(n, result)
        return result

    def _is_heavy(self, n: fx.Node, result: Any) -> bool:
        weight = n.op == "call_module" and getattr(self.fetch_attr(str(n.target)), "weight", None)
        if not isinstance(weight, Tensor) or not isinstance(result, Tensor) or weight.dim() < 2:
            return False
        rows = result.numel() / max(1, result.shape[0] * weight.shape[0])
        return _bytes(weight) >= _HEAVY_BYTES and rows < _FEW_ROWS


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
    smallest = _HEAVY_BATCH if sizes.heavy else _SMALLEST_BATCH
    size = max(smallest, _WORKING_SET_BYTES * probe // max(1, sizes.largest))
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
