"""Fourth step: any batch size, also for networks that were exported with a fixed one.

`torch.export.export(model, (x,))` writes the batch size of `x` into every reshape. Running the
graph at that size and at another one side by side shows where: a literal is replaced by the batch
size where the axis it stands for carries the batch. Whether the result is right is not argued but
measured: every sample has to get the same answer in any batch.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from worker.engine.canonical.module import CanonicalGraph

_ATEN = torch.ops.aten
_RESHAPES = {_ATEN.view.default, _ATEN.reshape.default, _ATEN._unsafe_view.default}
_EXPANDS = {_ATEN.expand.default, _ATEN.broadcast_to.default, _ATEN.repeat.default}
_NEW = {_ATEN.zeros.default: 0, _ATEN.ones.default: 0, _ATEN.full.default: 0}
_NEW_LIKE = {_ATEN.new_zeros.default: 1, _ATEN.new_ones.default: 1, _ATEN.new_full.default: 1}
_TO_END = (1 << 63) - 1
RTOL, ATOL = 1e-3, 1e-4

Inputs = Callable[[int], list[Tensor]]


class _NoWay(Exception):
    """The batch size can't be told apart from other sizes."""


def widened(module: CanonicalGraph, batch: int, inputs: Inputs) -> CanonicalGraph | None:
    """The graph for any batch size, or None when there is none that gives the same answers.

    `inputs(n)` makes the inputs of n samples. The modules and tensors are shared with `module`.
    """
    for attempt in range(2):
        candidate = CanonicalGraph(module, _copied(module.graph))
        candidate.eval()
        try:
            _Widener(candidate, batch, attempt).run(inputs(batch), inputs(batch + 2))
        except _NoWay:
            continue
        candidate.graph.eliminate_dead_code()
        candidate.recompile()
        if any_batch_agrees(candidate, module, batch, inputs):
            return candidate
    return None


def _copied(graph: fx.Graph) -> fx.Graph:
    copy = fx.Graph()
    renamed: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        renamed[node] = copy.node_copy(node, lambda n: renamed[n])
    return copy


def any_batch_agrees(
    candidate: Callable[..., Any], reference: Callable[..., Any], batch: int, inputs: Inputs
) -> bool:
    """Whether samples get the same answer in batches of 1, `batch` and `batch + 2`.

    `reference` is only run in batches of `batch`, the size it is known to work for.
    """
    many = inputs(batch + 2)
    with torch.no_grad():
        try:
            whole = candidate(*many)
            first = candidate(*[tensor[:1] for tensor in many])
            head = reference(*[tensor[:batch] for tensor in many])
            tail = reference(*[tensor[-batch:] for tensor in many])
            same_size = candidate(*[tensor[:batch] for tensor in many])
        except (RuntimeError, IndexError, ValueError, TypeError):
            return False
    if not torch.equal(_finite(same_size), _finite(head)):
        return False
    return (
        _agree(whole[:batch], head)
        and _agree(whole[-batch:], tail)
        and _agree(whole[:1], first)
        and whole.shape[0] == batch + 2
    )


def _finite(tensor: Tensor) -> Tensor:
    return torch.nan_to_num(tensor) if tensor.is_floating_point() else tensor


def _agree(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or not one.is_floating_point():
        return one.shape == other.shape and torch.equal(one, other)
    loose = 30 if torch.finfo(one.dtype).bits < 32 else 1
    one, other = one.double(), other.double()
    scale = float(torch.nan_to_num(other).abs().max()) if other.numel() else 1.0
    return torch.allclose(one, other, RTOL * loose, ATOL * loose * max(scale, 1e-6), equal_nan=True)


class _Widener:
    """Rewrites one graph in place while running it at two batch sizes."""

    def __init__(self, module: CanonicalGraph, batch: int, attempt: int) -> None:
        self.module = module
        self.graph = module.graph
        self.batch = batch
        self.attempt = attempt
        self.narrow: dict[fx.Node, Any] = {}
        self.wide: dict[fx.Node, Any] = {}
        self.size: fx.Node | None = None
        self.wide_batch = 0

    def run(self, narrow: Sequence[Tensor], wide: Sequence[Tensor]) -> None:
        self.wide_batch = wide[0].shape[0]
        given = iter(zip(narrow, wide, strict=True))
        last_use: dict[fx.Node, fx.Node] = {}
        for node in self.graph.nodes:
            for source in node.all_input_nodes:
                last_use[source] = node
        with torch.no_grad():
            for node in list(self.graph.nodes):
                if node.op == "placeholder":
                    self.narrow[node], self.wide[node] = next(given)
                    if self.size is None:
                        self.add_size(node)
                elif node.op != "output":
                    self.step(node)
                for source in set(node.all_input_nodes):
                    if last_use.get(source) is node and source.op != "placeholder":
                        self.narrow.pop(source, None)
                        self.wide.pop(source, None)

    def add_size(self, first: fx.Node) -> None:
        after = [n for n in self.graph.nodes if n.op == "placeholder"][-1]
        with self.graph.inserting_after(after):
            self.size = self.graph.call_function(_ATEN.sym_size.int, (first, 0))
        self.size.meta["path"] = ""
        self.narrow[self.size], self.wide[self.size] = self.batch, self.wide_batch

    def step(self, node: fx.Node) -> None:
        self.narrow[node] = self.call(node, self.narrow)
        if node.op == "call_function":
            self.rewrite(node)
        try:
            self.wide[node] = self.call(node, self.wide)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise _NoWay from error

    def call(self, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: env[n])
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.module)
        if node.op == "call_module":
            return self.module.get_submodule(str(node.target))(*args, **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)

    def rewrite(self, node: fx.Node) -> None:
        target = node.target
        if target in _RESHAPES:
            self.reshape(node, 1, tuple(self.narrow[node].shape), 0)
        elif target is _ATEN.unflatten.int and len(node.args) >= 3:
            axis = node.args[1] % self.narrow[node.args[0]].dim()
            self.reshape(node, 2, tuple(self.narrow[node].shape), axis)
        elif target in _EXPANDS:
            self.expand(node)
        elif target in _NEW:
            self.new(node, _NEW[target])
        elif target in _NEW_LIKE:
            self.new(node, _NEW_LIKE[target])
        elif target is _ATEN.slice.Tensor:
            self.slice(node)

    def batch_axis(self, source: Any) -> int | None:
        """The axis that grows with the batch."""
        narrow, wide = self.narrow[source], self.wide[source]
        pairs = zip(narrow.shape, wide.shape, strict=True)
        axes = [at for at, (small, large) in enumerate(pairs) if small != large]
        if len(axes) > 1:
            raise _NoWay
        return axes[0] if axes else None

    def reshape(self, node: fx.Node, where: int, out: tuple[int, ...], shift: int) -> None:
        axis = self.batch_axis(node.args[0])
        if axis is None:
            return
        shape = self.narrow[node.args[0]].shape
        inner = math.prod(shape[axis + 1 :]) * (shape[axis] // self.batch)
        fitting = [
            at
            for at, size in enumerate(out)
            if size % self.batch == 0 and math.prod(out[at + 1 :]) * (size // self.batch) == inner
        ]
        fitting.sort(key=lambda at: (out[at] != self.batch, at != axis, at))
        sizes = list(node.args[where])
        if not fitting:
            raise _NoWay
        at = fitting[0] - shift
        if 0 <= at < len(sizes) and sizes[at] != -1:
            if not isinstance(sizes[at], int):
                return
            sizes[at] = self.times(node, out[at + shift] // self.batch)
            node.update_arg(where, sizes)

    def expand(self, node: fx.Node) -> None:
        sizes = list(node.args[1])
        source = self.narrow[node.args[0]]
        offset = len(sizes) - source.dim()
        axis = self.batch_axis(node.args[0])
        repeats = node.target is _ATEN.repeat.default
        if axis is not None:
            if not repeats and sizes[axis + offset] == source.shape[axis]:
                sizes[axis + offset] = self.times(node, source.shape[axis] // self.batch)
        else:
            for at, size in enumerate(sizes):
                single = at < offset or source.shape[at - offset] == 1
                if single and isinstance(size, int) and size == self.batch:
                    sizes[at] = self.times(node, 1)
                    break
                if self.batch == 1:
                    break
        node.update_arg(1, sizes)

    def new(self, node: fx.Node, where: int) -> None:
        sizes = list(node.args[where])
        fitting = [at for at, size in enumerate(sizes) if size == self.batch]
        if fitting and len(sizes) > 1:
            at = fitting[min(self.attempt, len(fitting) - 1)]
            if self.batch > 1 or at == self.attempt:
                sizes[at] = self.times(node, 1)
                node.update_arg(where, sizes)

    def slice(self, node: fx.Node) -> None:
        axis = self.batch_axis(node.args[0])
        given = [*node.args, *[None] * (4 - len(node.args))]
        start, end = given[2], given[3]
        if axis is not None and (given[1] or 0) == axis and not start and end == self.batch:
            node.args = (given[0], given[1] or 0, start or 0, _TO_END, *node.args[4:])

    def times(self, node: fx.Node, factor: int) -> fx.Node:
        """The batch size times `factor`, as a node before `node`."""
        assert self.size is not None
        if factor == 1:
            return self.size
        with self.graph.inserting_before(node):
            product = self.graph.call_function(operator.mul, (self.size, factor))
        product.meta["path"] = node.meta.get("path", "")
        self.narrow[product] = self.batch * factor
        self.wide[product] = self.wide_batch * factor
        return product
