"""What a `.pt2` archive says, as typed values: nothing in here can run.

The form follows torch's export schema 8 (torch 2.9 to 2.13), cut down to what feed-forward and
recurrent networks need. Tensors and symbolic integers are `Ref`s to the value of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ref:
    """The value of that name: a tensor or a symbolic integer."""

    name: str


@dataclass(frozen=True)
class Dim:
    """One size of a shape: fixed, or free with the value it had when the network was exported."""

    size: int
    free: bool


@dataclass(frozen=True)
class TensorMeta:
    """`strides` and `offset` are None where they depend on a free size."""

    dtype: torch.dtype
    shape: tuple[Dim, ...]
    strides: tuple[int, ...] | None
    offset: int | None
    requires_grad: bool

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(dim.size for dim in self.shape)


@dataclass(frozen=True)
class Frame:
    """One module on the way to an operator: its path in the user's network, and its class name."""

    path: str
    type: str


@dataclass(frozen=True)
class Argument:
    """`name` as in the operator's schema; `value` nests Refs, GraphData and plain values."""

    name: str
    value: Any
    keyword: bool


@dataclass(frozen=True)
class NodeData:
    """One operator call. `outputs`: a name each; a list of names for a list of tensors."""

    target: str
    inputs: tuple[Argument, ...]
    outputs: tuple[str | list[str] | None, ...]
    stack: tuple[Frame, ...]

    @property
    def path(self) -> str:
        return self.stack[-1].path if self.stack else ""


@dataclass(frozen=True)
class GraphData:
    inputs: tuple[str, ...]
    outputs: tuple[Any, ...]
    nodes: tuple[NodeData, ...]
    tensors: Mapping[str, TensorMeta]


class Kind(Enum):
    """What an input of the graph is."""

    USER = "user"
    PARAMETER = "parameter"
    BUFFER = "buffer"
    CONSTANT = "constant"


@dataclass(frozen=True)
class GraphInput:
    """`key`: the state_dict key or constant name; for user inputs the input's own name."""

    name: str
    kind: Kind
    key: str
    persistent: bool = True


@dataclass(frozen=True)
class ExportedProgramData:
    """A whole archive.

    `state`: every tensor of the state_dict, tied ones as the same object, in the network's own
    order; `parameters`: which keys are parameters. `constants`: tensors that are not in the
    state_dict. `output`: index of the output that counts as the network's answer.
    """

    graph: GraphData
    inputs: tuple[GraphInput, ...]
    state: Mapping[str, Tensor]
    parameters: frozenset[str]
    constants: Mapping[str, Tensor]
    modules: tuple[str, ...]
    output: int
