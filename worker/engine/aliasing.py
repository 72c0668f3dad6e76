"""In-place operators and views: which nodes share memory that something later changes.

A cached activation must never be changed by the run of a cell. Rather than trust operator names
alone, the graph is run once on a few samples and watched: a tensor's version counter shows who
writes, its storage who shares. Declared aliases (operator schemas, and operators that return either
a view or a copy) are added, because sharing can depend on the batch's shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

_MAY_RETURN_INPUT = frozenset(
    {
        "reshape",
        "contiguous",
        "to",
        "flatten",
        "dropout",
        "alpha_dropout",
        "feature_dropout",
        "expand",
        "expand_as",
        "squeeze",
        "float",
        "double",
        "half",
        "type_as",
        "view_as",
        "reshape_as",
        "movedim",
        "identity",
        "getitem",
        "type",
        "unflatten",
    }
)


@dataclass(frozen=True)
class SharedMemory:
    """Nodes that may share memory, at least one of which changes it in place.

    `members` make or view the memory, `writers` change it (they are members too).
    """

    members: frozenset[fx.Node]
    writers: frozenset[fx.Node]


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in a nested value."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in tensors_in(part)]
    return []


def storage_of(tensor: Tensor) -> int:
    """An address that tensors sharing memory have in common (0 for tensors without any)."""
    return tensor.untyped_storage().data_ptr()


class _Watcher(fx.Interpreter):
    """Runs a graph, keeps every value, and notes writers and sharing."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.made: dict[fx.Node, set[int]] = {}
        self.writers: dict[fx.Node, set[int]] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "output":
            return None
        watched = [t for i in n.all_input_nodes for t in tensors_in(self.env[i])]
        versions = [t._version for t in watched]
        result = super().run_node(n)
        written = {storage_of(t) for t, v in zip(watched, versions, strict=True) if t._version != v}
        if written:
            self.writers[n] = written
        self.made[n] = {storage_of(t) for t in tensors_in(result)} - {0}
        return result


def shared_memory(module: fx.GraphModule, inputs: Sequence[Tensor]) -> list[SharedMemory]:
    """The groups of nodes that share memory which some node changes in place.

    `inputs` are a few samples (cloned before use). Graphs without in-place operators, the usual
    case, give an empty list.
    """
    watcher = _Watcher(module)
    with torch.inference_mode(False), torch.no_grad():
        watcher.run(*[tensor.clone() for tensor in inputs])
    if not watcher.writers:
        return []
    nodes = list(watcher.made)
    parent: dict[Any, Any] = {}

    def find(item: Any) -> Any:
        while parent.setdefault(item, item) != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for node in nodes:
        for address in watcher.made[node] | watcher.writers.get(node, set()):
            parent[find(node)] = find(address)
        if _declared_alias(node):
            for source in node.all_input_nodes:
                parent[find(node)] = find(source)
    groups: dict[Any, list[fx.Node]] = {}
    for node in nodes:
        groups.setdefault(find(node), []).append(node)
    return [
        SharedMemory(frozenset(group), frozenset(n for n in group if n in watcher.writers))
        for group in groups.values()
        if any(n in watcher.writers for n in group)
    ]


def _declared_alias(node: fx.Node) -> bool:
    if node.op == "call_function":
        schema = getattr(node.target, "_schema", None)
        if schema is not None:
            if any(result.alias_info is not None for result in schema.returns):
                return True
            return schema.name.rpartition("::")[2] in _MAY_RETURN_INPUT
        return getattr(node.target, "__name__", "") in _MAY_RETURN_INPUT
    if node.op == "call_method":
        return str(node.target) in _MAY_RETURN_INPUT or str(node.target).startswith("view")
    return False


def protect_sources(
    module: fx.GraphModule, shared: Sequence[SharedMemory]
) -> fx.GraphModule | None:
    """A graph in which inputs and parameters that would be changed in place are copied first.

    None when no input or parameter is in danger. Modules are shared with the given graph.
    """
    endangered = [
        node for group in shared for node in group.members if node.op in ("placeholder", "get_attr")
    ]
    if not endangered:
        return None
    graph = fx.Graph()
    renamed: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        copied = graph.node_copy(node, lambda n: renamed[n])
        renamed[node] = copied
        if node in endangered:
            renamed[node] = graph.call_function(torch.clone, (copied,))
    return fx.GraphModule(module, graph)
