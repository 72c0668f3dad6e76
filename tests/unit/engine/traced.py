"""Networks and splits in memory, for tests that need a graph exactly as it is written.

Files give canonical graphs, which have no in-place operators or shared views; here they stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, fx, nn

from worker.engine.formats.splits import Split, Transform


@dataclass(frozen=True)
class Input:
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class PlainUnit:
    id: str
    size: int
    shape: tuple[int, ...]
    members: tuple[str, ...]
    prunable: bool = True
    reason: str | None = None


@dataclass
class TracedModel:
    """What the engine asks of a canonical model, around a symbolically traced module."""

    module: fx.GraphModule
    inputs: tuple[Input, ...] = (Input(),)
    fixed_batch: int | None = None
    tied: Mapping[str, str] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Tensor]:
        return self.module.state_dict()

    def train_mode(self, mode: bool) -> None:
        self.module.train(mode)


def trace(module: nn.Module, *dtypes: torch.dtype, fixed_batch: int | None = None) -> TracedModel:
    """The traced module in evaluation mode; inputs are float32 unless dtypes are given."""
    kinds = dtypes or (torch.float32,)
    return TracedModel(
        fx.symbolic_trace(module.eval()), tuple(Input(kind) for kind in kinds), fixed_batch
    )


def plain_units(model: TracedModel, minimum_dims: int = 2) -> list[PlainUnit]:
    """Every parameter once (by its first name), prunable from `minimum_dims` dimensions on."""
    names: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    for key, tensor in model.module.named_parameters(remove_duplicate=False):
        names.setdefault(id(tensor), []).append(key)
        tensors[id(tensor)] = tensor
    return [
        PlainUnit(
            keys[0],
            tensors[which].numel(),
            tuple(tensors[which].shape),
            tuple(keys),
            tensors[which].dim() >= minimum_dims,
            None if tensors[which].dim() >= minimum_dims else "It has one dimension.",
        )
        for which, keys in names.items()
    ]


def make_split(
    shapes: Sequence[tuple[int, ...]],
    samples: int,
    classes: int,
    seed: int = 0,
    vocabulary: int | None = None,
) -> Split:
    """Random samples: normal numbers, or token ids below `vocabulary`."""
    generator = np.random.default_rng(seed)
    arrays = tuple(
        generator.integers(0, vocabulary, (samples, *shape))
        if vocabulary
        else generator.standard_normal((samples, *shape)).astype(np.float32)
        for shape in shapes
    )
    return split_of(arrays, generator.integers(0, classes, samples))


def split_of(arrays: Sequence[np.ndarray], labels: np.ndarray) -> Split:
    """A split of these arrays."""
    return Split(
        name="tune",
        labels=labels,
        arrays=tuple(arrays),
        transforms=tuple(Transform() for _ in arrays),
        index=None,
        content=lambda: ["in memory"],
    )


def randomise_norms(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms statistics that differ from a fresh network's."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            with torch.no_grad():
                for tensor in (part.running_mean, part.bias):
                    tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
                for tensor in (part.running_var, part.weight):
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module
