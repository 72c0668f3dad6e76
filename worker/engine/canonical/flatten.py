"""First step: one flat list of operator calls, without checks and without graphs inside graphs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from app.domain.errors import UnsupportedOperator
from worker.engine.formats.pt2_json import malformed
from worker.engine.formats.pt2_schema import (
    Argument,
    GraphData,
    NodeData,
    Ref,
    TensorMeta,
)
from worker.engine.operators import CHECKS

_SET_GRAD = "torch.ops.higher_order.wrap_with_set_grad_enabled"
_AUTOCAST = "torch.ops.higher_order.wrap_with_autocast"
_COPY = "torch.ops.aten.copy.default"
MAX_NODES = 100_000


def map_refs(value: Any, names: dict[str, Any]) -> Any:
    """`value` with every Ref replaced by `names[ref.name]` (left as it is when not in there)."""
    if isinstance(value, Ref):
        return names.get(value.name, value)
    if isinstance(value, list):
        return [map_refs(item, names) for item in value]
    return value


def refs(value: Any) -> Iterator[str]:
    """The names a value reads."""
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, list):
        for item in value:
            yield from refs(item)


def output_names(node: NodeData) -> Iterator[str]:
    for output in node.outputs:
        if isinstance(output, list):
            yield from output
        elif output is not None:
            yield output


def flatten(graph: GraphData) -> GraphData:
    """The same computation without `torch.no_grad` regions as graphs of their own.

    A region without gradients becomes its operators, each result detached; so does a region that
    switches autocast off, which it is anyway. Raises UnsupportedOperator for other graphs inside
    graphs (branches, loops, autocast switched on).
    """
    tensors = dict(graph.tensors)
    nodes = list(_flat(graph.nodes, tensors, [0]))
    return GraphData(graph.inputs, graph.outputs, tuple(nodes), tensors)


def _flat(
    nodes: Iterable[NodeData], tensors: dict[str, TensorMeta], counter: list[int]
) -> Iterator[NodeData]:
    for node in nodes:
        counter[0] += 1
        if counter[0] > MAX_NODES:
            raise malformed(f"the network has more than {MAX_NODES:,} operators")
        if node.target in CHECKS:
            continue
        if node.target in (_SET_GRAD, _AUTOCAST):
            yield from _inline(node, tensors, counter)
            continue
        if any(isinstance(argument.value, GraphData) for argument in node.inputs):
            raise _nested(node)
        if node.target == _COPY:
            yield from _copied(node, counter[0])
            continue
        yield node


def _copied(node: NodeData, number: int) -> Iterator[NodeData]:
    """`copy(target, source)`, which has no gradient, as `source` in the target's shape and type."""
    given = {argument.name: argument.value for argument in node.inputs}
    target, source = given.get("self"), given.get("src")
    name = next(output_names(node), None)
    if not isinstance(target, Ref) or not isinstance(source, Ref) or name is None:
        raise malformed("a copy is called without what it copies")
    shaped = f"copy_{number}_{name}"
    inputs = (Argument("self", source, False), Argument("other", target, False))
    yield NodeData("torch.ops.aten.expand_as.default", inputs, (shaped,), node.stack)
    inputs = (Argument("self", Ref(shaped), False), Argument("other", target, False))
    yield NodeData("torch.ops.aten.type_as.default", inputs, (name,), node.stack)


def _nested(node: NodeData) -> UnsupportedOperator:
    where = f"the layer {node.path}" if node.path else "the network's own forward function"
    name = node.target.removeprefix("torch.ops.")
    hint = "Replace data-dependent branches and loops with tensor arithmetic and export again."
    if node.target == _AUTOCAST:
        hint = "Export the network outside of torch.autocast."
    return UnsupportedOperator(
        f"The operator {name[:120]} in {where} is not on the list of allowed operators.", hint
    )


def _inline(
    node: NodeData, tensors: dict[str, TensorMeta], counter: list[int]
) -> Iterator[NodeData]:
    values = [argument.value for argument in node.inputs]
    at = next((i for i, value in enumerate(values) if isinstance(value, GraphData)), -1)
    settings, body, given = values[:at], values[at], values[at + 1 :]
    if node.target == _AUTOCAST:
        # device_type, dtype, enabled, cache_enabled
        fits, attached = len(settings) == 4 and settings[2] is False, True
    else:
        fits = len(settings) == 1 and isinstance(settings[0], bool)
        attached = fits and settings[0]
    if not fits or not isinstance(body, GraphData):
        raise _nested(node)
    if len(body.inputs) != len(given):
        raise malformed("a graph inside the graph has other inputs than it is given")
    prefix = f"region_{counter[0]}_"
    names: dict[str, Any] = dict(zip(body.inputs, given, strict=True))
    for inner in body.nodes:
        for name in output_names(inner):
            names[name] = Ref(prefix + name)
            if name in body.tensors:
                tensors[prefix + name] = body.tensors[name]
    renamed = [
        replace(
            inner,
            inputs=tuple(replace(a, value=map_refs(a.value, names)) for a in inner.inputs),
            outputs=tuple(_rename(output, prefix) for output in inner.outputs),
        )
        for inner in body.nodes
    ]
    yield from _flat(renamed, tensors, counter)
    outer = list(output_names(node))
    if len(outer) != len(body.outputs):
        raise malformed("a graph inside the graph has other outputs than are used")
    for name, value in zip(outer, body.outputs, strict=True):
        target = "torch.ops.aten.alias.default" if attached else "torch.ops.aten.detach.default"
        source = map_refs(value, names)
        if isinstance(source, Ref):
            yield NodeData(target, (Argument("self", source, False),), (name,), node.stack)


def _rename(output: str | list[str] | None, prefix: str) -> str | list[str] | None:
    if isinstance(output, list):
        return [prefix + name for name in output]
    return None if output is None else prefix + output


def without_dead_code(graph: GraphData) -> GraphData:
    """The calls that the outputs depend on."""
    needed = {name for value in graph.outputs for name in refs(value)}
    kept: list[NodeData] = []
    for node in reversed(graph.nodes):
        if needed.intersection(output_names(node)):
            kept.append(node)
            needed.update(name for a in node.inputs for name in refs(a.value))
    return replace(graph, nodes=tuple(reversed(kept)))
