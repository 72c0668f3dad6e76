"""The canonical form: every accepted file becomes this one thing, and all work is done on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from worker.engine.canonical.build import build_graph
from worker.engine.canonical.check import checked
from worker.engine.cost import Layer
from worker.engine.formats.pt2_schema import ExportedProgramData

__all__ = ["CanonicalModel", "InputSpec", "Layer", "build_canonical"]


@dataclass(frozen=True)
class InputSpec:
    """One input. `shape`: None where any size goes; axis 0 is the batch."""

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype


class CanonicalModel:
    """A network whose weighted nodes are real modules at the user's own paths.

    `fixed_batch`: None, or the one batch size the network runs at. `tied`: key of a tied tensor to
    the first key of the same tensor.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        inputs: tuple[InputSpec, ...],
        layers: tuple[Layer, ...],
        fixed_batch: int | None,
        keys: tuple[str, ...],
    ) -> None:
        self.module = module
        self.inputs = inputs
        self.layers = layers
        self.fixed_batch = fixed_batch
        self._keys = keys
        self.tied: Mapping[str, str] = _tied(self.state_dict())

    def state_dict(self) -> dict[str, Tensor]:
        """The live tensors by the user's keys, in the user's order; tied keys give one object."""
        own: dict[str, Tensor] = dict(self.module.named_parameters(remove_duplicate=False))
        own.update(self.module.named_buffers(remove_duplicate=False))
        return {key: own[key] for key in self._keys}

    def train_mode(self, training: bool) -> None:
        """Turn dropout and the statistics of the batch on or off."""
        self.module.train(training)


def _tied(state: Mapping[str, Tensor]) -> dict[str, str]:
    first: dict[int, str] = {}
    tied = {}
    for key, tensor in state.items():
        name = first.setdefault(id(tensor), key)
        if name != key and isinstance(tensor, nn.Parameter):
            tied[key] = name
    return tied


def build_canonical(program: ExportedProgramData) -> CanonicalModel:
    """The canonical form of a program, in evaluation mode, checked by running it.

    Its answers are those of the program bit for bit, at any batch size where the network allows it.
    Raises UnsupportedOperator or InvalidFile.
    """
    module, _ = build_graph(program)
    result = checked(module, program)
    inputs = tuple(InputSpec(*spec) for spec in result.inputs)
    return CanonicalModel(
        result.module, inputs, result.layers, result.fixed_batch, tuple(program.state)
    )
