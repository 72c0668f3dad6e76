"""Who computes with a weight: the nodes of the canonical graph that read it, and as what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from worker.engine.graph import CanonicalModel
    from worker.engine.units import Unit

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)


@dataclass(frozen=True)
class Reader:
    """A node that computes with a weight.

    `module` and `role`: the module that the node calls and the name it has for the weight; None and
    "" where the node is an operator that is given the tensor itself.
    """

    node: fx.Node
    module: nn.Module | None
    role: str

    @property
    def operator(self) -> str:
        """The name of the operator, "linear" say; "" for a module."""
        if self.module is not None:
            return ""
        if self.node.op == "call_method":
            return str(self.node.target)
        name = getattr(self.node.target, "_opname", None)
        return str(name or getattr(self.node.target, "__name__", ""))

    def given_as(self, place: int, name: str, source: fx.Node) -> bool:
        """Is this argument, by place or name, the node `source`, and no other argument?"""
        given = self.node.kwargs.get(name)
        if given is None and len(self.node.args) > place:
            given = self.node.args[place]
        return given is source and _times(self.node, source) == 1


def readers_of(model: CanonicalModel, unit: Unit) -> list[tuple[Reader, fx.Node | None]]:
    """Every node that computes with the unit's weight, in order.

    Beside each the get_attr node that fetches the tensor for it, if it isn't a module.
    """
    keys = set(unit.members)
    found: list[tuple[Reader, fx.Node | None]] = []
    for node in model.module.graph.nodes:
        if node.op == "call_module":
            module = model.module.get_submodule(str(node.target))
            for name, _ in module.named_parameters(remove_duplicate=False):
                if f"{node.target}.{name}" in keys:
                    found.append((Reader(node, module, name), None))
        for source in node.all_input_nodes:
            if source.op == "get_attr" and str(source.target) in keys:
                found.append((Reader(node, None, ""), source))
    return found


def filter_owner(model: CanonicalModel, unit: Unit) -> Tensor | None:
    """For every entry (int64, in the weight's shape) the output channel that it belongs to.

    None where the weight isn't that of a convolution or a dense layer, or is read in two ways.
    """
    owners = [_owner_of(reader, source, unit.shape) for reader, source in readers_of(model, unit)]
    first = owners[0] if owners else None
    if first is None or any(other is None or not torch.equal(first, other) for other in owners):
        return None
    return first


def _owner_of(reader: Reader, source: fx.Node | None, shape: tuple[int, ...]) -> Tensor | None:
    axis = 0
    if isinstance(reader.module, TRANSPOSED):
        inputs, outputs = shape[:2]
        block = torch.arange(inputs) // (inputs // reader.module.groups)
        index = block[:, None] * outputs + torch.arange(outputs)
        return _spread(index, shape)
    if source is not None:
        if _is_product(reader, source):
            axis = 1
        elif not is_linear(reader, source) and not is_convolution(reader, source):
            return None
    elif not (
        isinstance(reader.module, (nn.Linear, *CONVOLUTIONS, *RECURRENT)) and len(shape) >= 2
    ):
        return None
    index = torch.arange(shape[axis])
    return _spread(index if axis == 0 else index.expand(shape[0], -1), shape)


def is_linear(reader: Reader, source: fx.Node) -> bool:
    """`linear(x, weight)`."""
    return reader.operator == "linear" and reader.given_as(1, "weight", source)


def product_input(reader: Reader, source: fx.Node) -> fx.Node | None:
    """The x of `x @ weight`, `mm(x, weight)` and `addmm(bias, x, weight)`; else None."""
    place = {"addmm": 2, "mm": 1, "matmul": 1}.get(reader.operator)
    if place is None or reader.node.kwargs or len(reader.node.args) <= place:
        return None
    given = reader.node.args[place - 1]
    if reader.node.args[place] is not source or _times(reader.node, source) != 1:
        return None
    return given if isinstance(given, fx.Node) else None


def _is_product(reader: Reader, source: fx.Node) -> bool:
    return product_input(reader, source) is not None


def is_convolution(reader: Reader, source: fx.Node) -> bool:
    names = ("conv1d", "conv2d", "conv3d")
    return reader.operator in names and reader.given_as(1, "weight", source)


def _times(node: fx.Node, source: fx.Node) -> int:
    """How often a node is given another."""
    count = 0

    def look(found: fx.Node) -> fx.Node:
        nonlocal count
        count += found is source
        return found

    fx.node.map_arg((node.args, node.kwargs), look)
    return count


def _spread(index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The index of the leading axes, for every entry."""
    return index.reshape(*index.shape, *[1] * (len(shape) - index.dim())).expand(shape)
