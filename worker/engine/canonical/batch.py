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

from worker.engine.canonical.dry_run import RUN_ERRORS
from worker.engine.canonical.module import CanonicalGraph

_ATEN = torch.ops.aten
_RESHAPES = {_ATEN.view.default, _ATEN.reshape.default, _ATEN._unsafe_view.default}
_EXPANDS = {_ATEN.expand.default, _ATEN.broadcast_to.default, _ATEN.repeat.default}
_NEW = {_ATEN.zeros.default: 0, _ATEN.ones.default: 0, _ATEN.full.default: 0}
_NEW_LIKE = {_ATEN.new_zeros.default: 1, _ATEN.new_ones.default: 1, _ATEN.new_full.default: 1}
_RANGES = {_ATEN.arange.default: 0, _ATEN.arange.start: 1, _ATEN.arange.start_step: 1}
_TO_END = (1 << 63) - 1
RTOL, ATOL = 1e-3, 1e-4
MAX_ATTEMPTS = 24

Inputs = Callable[[int], list[Tensor]]


class _NoWay(Exception):
    """The batch size can't be told apart from other sizes."""


def widened(module: CanonicalGraph, batch: int, inputs: Inputs) -> CanonicalGraph | None:
    """The graph for any batch size, or None when there is none that gives the same answers.

    `inputs(n)` makes the inputs of n samples. The modules and tensors are shared with `module`.
    """
    choices = _Choices()
    for _ in range(MAX_ATTEMPTS):
        candidate = CanonicalGraph(module, _copied(module.graph))
        candidate.eval()
        try:
            _Widener(candidate, batch, choices).run(inputs(batch), inputs(batch + 2))
        except _NoWay:
            pass
        else:
            candidate.graph.eliminate_dead_code()
            candidate.recompile()
            if any_batch_agrees(candidate, module, batch, inputs):
                return candidate
        if not choices.advance():
            break
    return None


class _Choices:
    """Which of several readings is taken, the same for alike cases; all are gone through in turn.

    With a batch of one, a 1 or the factor 1 of a merged axis may stand for the batch or not.
    """

    def __init__(self) -> None:
        self._taken: dict[Any, int] = {}
        self._options: dict[Any, int] = {}

    def pick(self, case: Any, options: int) -> int:
        self._options[case] = options
        return self._taken.setdefault(case, 0)

    def advance(self) -> bool:
        """Change the latest choice that has readings left, forgetting those made after it."""
        while self._taken:
            case, taken = self._taken.popitem()
            if taken + 1 < self._options[case]:
                self._taken[case] = taken + 1
                return True
        return False


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
        except RUN_ERRORS:
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

    def __init__(self, module: CanonicalGraph, batch: int, choices: _Choices) -> None:
        self.module = module
        self.graph = module.graph
        self.batch = batch
        self.choices = choices
        self.narrow: dict[fx.Node, Any] = {}
        self.wide: dict[fx.Node, Any] = {}
        self.within: dict[fx.Node, int] = {}
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
        except RUN_ERRORS as error:
            raise _NoWay from error
        if node not in self.within:
            self.inherit(node)

    def inherit(self, node: fx.Node) -> None:
        """Where the batch shares its axis, it keeps its place there until the axis is split."""
        for source in node.all_input_nodes:
            if source in self.within and isinstance(self.narrow[node], Tensor):
                axis, own = self.batch_axis(source), self.batch_axis(node)
                if axis is not None and own is not None:
                    shape, before = self.narrow[node].shape, self.narrow[source].shape
                    if shape[own] == before[axis]:
                        self.within[node] = self.within[source]

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
        elif target in _RANGES:
            self.count(node, _RANGES[target])
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
        """Follow the batch through a change of shape, which keeps the order of the entries.

        `within` an axis that the batch shares with other axes: how many places one step of the
        batch is. In memory one step is that times the sizes of the later axes, before and after.
        """
        source = node.args[0]
        axis = self.batch_axis(source)
        if axis is None or not isinstance(source, fx.Node):
            return
        shape = tuple(self.narrow[source].shape)
        step = self.within.get(source, shape[axis] // self.batch) * math.prod(shape[axis + 1 :])
        fitting: list[tuple[int, int]] = []
        for at, size in enumerate(out):
            inner = math.prod(out[at + 1 :])
            within = step // inner if inner and step % inner == 0 else 0
            if within and size % (within * self.batch) == 0:
                fitting.append((at, within))
        if not fitting:
            raise _NoWay
        fitting.sort(key=lambda f: (out[f[0]] != self.batch, f[0] != axis, f[0]))
        case = ("reshape", shape, axis, step, out)
        at, within = fitting[self.choices.pick(case, len(fitting))]
        self.within[node] = within
        sizes = list(node.args[where])
        place = at - shift
        if 0 <= place < len(sizes) and isinstance(sizes[place], int) and sizes[place] != -1:
            sizes[place] = self.times(node, out[at] // self.batch)
            node.update_arg(where, sizes)

    def expand(self, node: fx.Node) -> None:
        sizes = list(node.args[1])
        source = self.narrow[node.args[0]]
        offset = len(sizes) - source.dim()
        axis = self.batch_axis(node.args[0])
        if axis is not None:
            if node.target is not _ATEN.repeat.default:
                sizes[axis + offset] = -1
                node.update_arg(1, sizes)
            return
        single = [at < offset or source.shape[at - offset] == 1 for at in range(len(sizes))]
        self.grow(node, 1, [at for at, one in enumerate(single) if one])

    def new(self, node: fx.Node, where: int) -> None:
        self.grow(node, where, range(len(node.args[where])))

    def count(self, node: fx.Node, where: int) -> None:
        """Numbers from 0 up to the batch size may stand for the samples, or for something else.

        What is done with them next tells those that stand for samples from the others. Steps of
        several say where each sample starts in a flat list (nn.EmbeddingBag).
        """
        args = list(node.args)
        step = args[2] if len(args) > 2 else 1
        if type(step) is not int or any(args[:where]) or args[where] != self.batch * step:
            return
        uses = tuple(str((user.target, user.args[1:])) for user in node.users)
        if self.choices.pick(("arange", tuple(args), uses), 2) == 0:
            node.update_arg(where, self.times(node, step))

    def grow(self, node: fx.Node, where: int, places: Sequence[int]) -> None:
        """Let one of these sizes follow the batch if it equals it, or none of them."""
        sizes = list(node.args[where])
        fitting: list[int | None] = [at for at in places if sizes[at] == self.batch]
        if not fitting or len(sizes) < 2:
            return
        fitting.append(None)
        case = (str(node.target), tuple(map(str, sizes)))
        at = fitting[self.choices.pick(case, len(fitting))]
        if at is not None:
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
