"""Layers joined with the batch norms and activations after them.

A value that one node makes and only the next one reads need not be written twice: a batch norm goes
into the weights before it, an activation works in place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from worker.engine.fast.activations import in_place, is_activation
from worker.engine.fast.kernels import Convolution, Layer, Linear, scale_and_shift
from worker.engine.fast.work import Work, aten_name, seen, sole_reader

_CONVOLUTIONS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm)
_LARGEST_SCALE = 1e4
"""Beyond it a folded weight would lose more than its last bits beside its neighbours."""
_IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


def drop_idle(work: Work) -> None:
    """Take out what does nothing in evaluation mode."""
    for node in work.nodes:
        module = work.submodule(node)
        if isinstance(module, _IDLE) and len(node.args) == 1 and not node.kwargs:
            node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
            work.graph.erase_node(node)


def join(work: Work) -> None:
    """Join what can be joined. The graph must have been watched."""
    for node in work.nodes:
        if not node.users:
            continue
        layer = _layer(work, node)
        if layer is not None:
            _replace(work, node, layer)
        elif _makes_new_memory(work, node):
            _join_activation(work, node)


def _layer(work: Work, node: fx.Node) -> Layer | None:
    module: Any = work.submodule(node)
    kind = type(module)
    made = seen(node)
    if module is None or made is None or made.dtype != torch.float32:
        return None
    if len(node.args) != 1 or node.kwargs or not isinstance(node.args[0], fx.Node):
        return None
    if kind in _CONVOLUTIONS:
        if module.padding_mode != "zeros" or module.weight.dtype != torch.float32:
            return None
        given = seen(node.args[0])
        if given is None or len(given.shape) != module.weight.dim():
            return None
        return Convolution(module)
    if kind is nn.Linear and module.weight.dtype == torch.float32:
        linear = Linear(module)
        linear.rows = functools.reduce(lambda a, b: a * b, made.shape[1:-1], 1)
        return linear
    return None


def _replace(work: Work, node: fx.Node, layer: Layer) -> None:
    last = node
    follower = sole_reader(last)
    if follower is not None and _foldable(work, node, follower):
        layer.norm = work.submodule(follower)
        last, follower = follower, sole_reader(follower)
    if follower is not None and _reads_first(follower, last):
        activation = in_place(work, follower)
        if activation is not None:
            layer.activation, last = activation, follower
    with work.graph.inserting_before(node):
        joined = work.graph.call_module(work.add(layer), node.args)
    joined.meta = dict(last.meta)
    last.replace_all_uses_with(joined)
    while True:
        before = last.args[0]
        work.graph.erase_node(last)
        if last is node:
            return
        assert isinstance(before, fx.Node)
        last = before


def _foldable(work: Work, node: fx.Node, follower: fx.Node) -> bool:
    layer: Any = work.submodule(node)
    norm: Any = work.submodule(follower)
    wanted = _CONVOLUTIONS.get(type(layer), nn.BatchNorm1d)  # type: ignore[arg-type]
    if type(norm) is not wanted or not _reads_first(follower, node) or len(follower.args) != 1:
        return False
    made = seen(node)
    if type(layer) is nn.Linear and (made is None or len(made.shape) != 2):
        return False
    if norm.training or norm.running_mean is None or norm.running_var is None:
        return False
    held = (*norm.parameters(), norm.running_mean, norm.running_var)
    if any(t.dtype != torch.float32 for t in held):
        return False
    scale, shift = scale_and_shift(norm)
    fine = torch.isfinite(scale).all() and torch.isfinite(shift).all()
    return bool(fine) and bool((scale.abs() <= _LARGEST_SCALE).all())


def _reads_first(node: fx.Node, source: fx.Node) -> bool:
    return bool(node.args) and node.args[0] is source and node.all_input_nodes == [source]


def _makes_new_memory(work: Work, node: fx.Node) -> bool:
    """Whether a node's result is memory of its own, in float32."""
    made = seen(node)
    if made is None or made.dtype != torch.float32:
        return False
    if node.op == "call_module":
        return type(work.submodule(node)) in _NORMS
    # A sum may come in the shape of a broadcast, but always in memory of its own.
    return aten_name(node) in ("add", "sub", "mul", "matmul", "bmm", "conv2d", "linear")


def _join_activation(work: Work, node: fx.Node) -> None:
    follower = sole_reader(node)
    if follower is None or not _reads_first(follower, node) or not is_activation(work, follower):
        return
    activation = in_place(work, follower)
    first: Callable[..., Any]
    if node.op == "call_module":
        module = work.submodule(node)
        assert module is not None
        joined_module = work.add(Then(module, activation))
        with work.graph.inserting_before(node):
            joined = work.graph.call_module(joined_module, node.args, node.kwargs)
    else:
        first = node.target  # type: ignore[assignment]
        with work.graph.inserting_before(node):
            joined = work.graph.call_function(then(first, activation), node.args, node.kwargs)
    joined.meta = dict(follower.meta)
    joined.meta["layout"] = aten_name(node)
    follower.replace_all_uses_with(joined)
    work.graph.erase_node(follower)
    work.graph.erase_node(node)


class Then(nn.Module):
    """A module with an activation in place on what it makes."""

    def __init__(self, module: nn.Module, activation: Any) -> None:
        super().__init__()
        self.module = module
        self._first = module.forward
        self._second = activation

    def forward(self, x: Tensor) -> Tensor:
        return self._second(self._first(x))


def then(first: Callable[..., Any], second: Any) -> Callable[..., Any]:
    """A function with an activation in place on what it makes."""

    def joined(*args: Any, **kwargs: Any) -> Any:
        return second(first(*args, **kwargs))

    # fx writes the name into the code that it makes of the graph.
    joined.__name__ = joined.__qualname__ = "joined"
    return joined
