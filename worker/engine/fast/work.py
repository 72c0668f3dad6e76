"""A private copy of a graph that passes rewrite, with the shapes that a run on samples showed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from worker.engine.objectives.base import first_tensor

SEEN = "seen"


@dataclass(frozen=True)
class Seen:
    """What a node's tensor looked like in the run on samples."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class Work:
    """A graph to be rewritten. Modules and parameters are those of the given module, shared."""

    def __init__(self, module: fx.GraphModule) -> None:
        graph = fx.Graph()
        copied: dict[fx.Node, fx.Node] = {}
        for node in module.graph.nodes:
            copied[node] = graph.node_copy(node, lambda n: copied[n])
        self.module = fx.GraphModule(module, graph)
        self.module.train(False)
        self._made = 0

    @property
    def graph(self) -> fx.Graph:
        return self.module.graph

    @property
    def nodes(self) -> list[fx.Node]:
        """The nodes that compute something, in order."""
        kinds = ("call_module", "call_function", "call_method")
        return [node for node in self.graph.nodes if node.op in kinds]

    def submodule(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls, None where it calls none."""
        if node.op != "call_module":
            return None
        return self.module.get_submodule(str(node.target))

    def add(self, module: nn.Module) -> str:
        """Give the graph a module of our own; returns its path."""
        path = f"_fast_{self._made}"
        self._made += 1
        self.module.add_submodule(path, module)
        return path

    def watch(self, sample: Sequence[Tensor]) -> Tensor:
        """Run on samples, note what every node makes, and return the logits."""
        watcher = _Watcher(self.module)
        with torch.inference_mode(False), torch.no_grad():
            result = watcher.run(*[tensor.clone() for tensor in sample])
        found = first_tensor(result)
        if not isinstance(found, Tensor):
            raise TypeError("the graph returns no tensor")
        return found


class _Watcher(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            n.meta[SEEN] = Seen(tuple(result.shape), result.dtype)
        else:
            n.meta.pop(SEEN, None)
        return result


def seen(node: Any) -> Seen | None:
    """What a node made when it was watched; None for anything but one tensor."""
    return node.meta.get(SEEN) if isinstance(node, fx.Node) else None


def sole_reader(node: fx.Node) -> fx.Node | None:
    """The one node that reads this one, None where there are several or none."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def aten_name(node: fx.Node) -> str | None:
    """`layer_norm` for a call of `torch.ops.aten.layer_norm.default`; None for other calls."""
    schema = getattr(node.target, "_schema", None) if node.op == "call_function" else None
    if schema is None or not schema.name.startswith("aten::"):
        return None
    return schema.name.removeprefix("aten::")


def argument(node: fx.Node, name: str) -> Any:
    """An argument of an aten call by its name, its default where it isn't given."""
    schema = node.target._schema  # type: ignore[union-attr]
    for at, parameter in enumerate(schema.arguments):
        if parameter.name == name:
            if at < len(node.args):
                return node.args[at]
            return node.kwargs.get(name, parameter.default_value)
    raise KeyError(name)
