"""Only the rows that reach the output.

A classifier that reads one token needs one row of its last block: attention asks with that row
alone, and what follows works on it alone. Backwards through the graph, each node is told which rows
its readers take; where all take the same ones, it makes no others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from worker.engine.fast.activations import is_activation
from worker.engine.fast.work import Work, argument, aten_name, seen

_ELEMENTWISE = frozenset(
    {
        *("add", "sub", "mul", "div", "rsub", "pow", "neg", "abs", "exp", "sqrt", "rsqrt"),
        *("tanh", "sigmoid", "erf", "square", "maximum", "minimum"),
    }
)


@dataclass(frozen=True)
class Rows:
    """`length` rows from `start` along an axis.

    Of a tensor that has samples it is never the first one.
    """

    axis: int
    start: int
    length: int


Wanted = dict[fx.Node, Rows | None]
"""For each input of a node the rows it takes, None for all."""


def narrow(work: Work) -> None:
    """Make nodes compute only what is read. The graph must have been watched."""
    rows, wanted = _demands(work)
    made: dict[tuple[fx.Node, Rows], fx.Node] = {}
    for node in work.nodes:
        if node not in wanted:
            continue
        mine = rows.get(node)
        for source, part in wanted[node].items():
            if part is not None and source not in rows:
                if (source, part) not in made:
                    with work.graph.inserting_before(node):
                        made[source, part] = work.graph.call_function(
                            torch.narrow, (source, part.axis, part.start, part.length)
                        )
                node.replace_input_with(source, made[source, part])
        if mine is not None:
            _resize(node, mine)
        else:
            _read_from_start(node)


def _demands(work: Work) -> tuple[dict[fx.Node, Rows], dict[fx.Node, Wanted]]:
    """The nodes that can do with some rows, and what they and the readers of parts then take."""
    rows: dict[fx.Node, Rows] = {}
    wanted: dict[fx.Node, Wanted] = {}
    asked: dict[fx.Node, set[Rows | None]] = {}
    for node in reversed(list(work.graph.nodes)):
        asks = asked.get(node, set())
        mine = next(iter(asks)) if len(asks) == 1 else None
        needs: Wanted | None = None
        if node.op in ("call_module", "call_function"):
            needs = _reads_part(node)
            if needs is None and mine is not None:
                needs = _needs(work, node, mine)
                if needs is not None:
                    rows[node] = mine
            if needs is not None:
                wanted[node] = needs
        for source in node.all_input_nodes:
            asked.setdefault(source, set()).add(needs.get(source) if needs else None)
    # A reader of a part of something that can't be narrowed stays as it is.
    return rows, {
        node: needs
        for node, needs in wanted.items()
        if node in rows or any(source in rows for source in needs)
    }


def _reads_part(node: fx.Node) -> Wanted | None:
    """The rows that a `select` or `slice` takes, where it takes a part."""
    name = aten_name(node)
    if name not in ("select", "slice"):
        return None
    source = node.args[0]
    given = seen(source)
    if given is None or not isinstance(source, fx.Node):
        return None
    axis = _axis(argument(node, "dim"), len(given.shape))
    size = given.shape[axis] if given.shape else 0
    if axis == 0 or size < 2:
        return None
    if name == "select":
        index = argument(node, "index")
        if not isinstance(index, int):
            return None
        return {source: Rows(axis, index % size, 1)}
    start, end, step = (argument(node, n) for n in ("start", "end", "step"))
    if step != 1 or not all(v is None or isinstance(v, int) for v in (start, end)):
        return None
    first, last, _ = slice(start, end).indices(size)
    if not 0 < last - first < size:
        return None
    return {source: Rows(axis, first, last - first)}


def _read_from_start(node: fx.Node) -> None:
    """A reader of a part of something that now makes this part only."""
    if aten_name(node) == "select":
        node.args = (node.args[0], node.args[1], 0)
    else:
        node.args = (node.args[0], node.args[1], None, None)
    node.kwargs = {}


def _needs(work: Work, node: fx.Node, mine: Rows) -> Wanted | None:
    """What a node needs of its inputs to make these rows alone; None where it can't."""
    made = seen(node)
    if made is None or mine.axis == 0:
        return None
    module = work.submodule(node)
    if module is not None:
        return _of_module(work, node, module, mine)
    if is_activation(work, node):
        return {node.all_input_nodes[0]: mine}
    name = aten_name(node)
    if name in _ELEMENTWISE:
        return _elementwise(node, made.shape, mine)
    rule = _RULES.get(name or "")
    return rule(node, made.shape, mine) if rule else None


def _of_module(work: Work, node: fx.Node, module: nn.Module, mine: Rows) -> Wanted | None:
    made = seen(node)
    assert made is not None
    trailing = 0
    if type(module) is nn.Linear:
        trailing = 1
    elif type(module) is nn.LayerNorm:
        trailing = len(module.normalized_shape)
    elif not is_activation(work, node):
        return None
    if len(node.all_input_nodes) != 1 or mine.axis >= len(made.shape) - trailing:
        return None
    return {node.all_input_nodes[0]: mine}


def _elementwise(node: fx.Node, shape: tuple[int, ...], mine: Rows) -> Wanted | None:
    needs: Wanted = {}
    for source in node.all_input_nodes:
        given = seen(source)
        if given is None:
            return None
        axis = mine.axis - (len(shape) - len(given.shape))
        whole = axis < 0 or given.shape[axis] == 1
        needs[source] = None if whole else Rows(axis, mine.start, mine.length)
    return needs


def _layer_norm(node: fx.Node, shape: tuple[int, ...], mine: Rows) -> Wanted | None:
    if mine.axis >= len(shape) - len(argument(node, "normalized_shape")):
        return None
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return {n: mine if n is source else None for n in node.all_input_nodes}


def _transpose(node: fx.Node, shape: tuple[int, ...], mine: Rows) -> Wanted | None:
    first, second = (_axis(argument(node, f"dim{at}"), len(shape)) for at in (0, 1))
    swap = {first: second, second: first}
    return _moved(node, swap.get(mine.axis, mine.axis), mine)


def _permute(node: fx.Node, shape: tuple[int, ...], mine: Rows) -> Wanted | None:
    return _moved(node, _axis(argument(node, "dims")[mine.axis], len(shape)), mine)


def _moved(node: fx.Node, axis: int, mine: Rows) -> Wanted | None:
    if axis == 0 or len(node.all_input_nodes) != 1:
        return None
    return {node.all_input_nodes[0]: Rows(axis, mine.start, mine.length)}


def _reshape(node: fx.Node, shape: tuple[int, ...], mine: Rows) -> Wanted | None:
    """Where the axes up to the rows' own, or from it on, are those of the input."""
    source = node.args[0]
    given = seen(source)
    if given is None or not isinstance(source, fx.Node) or len(node.args) < 2:
        return None
    if not isinstance(node.args[1], (list, tuple)):
        return None
    upto = mine.axis + 1
    if given.shape[:upto] == shape[:upto]:
        axis = mine.axis
    elif given.shape[mine.axis - len(shape) :] == shape[mine.axis :]:
        axis = mine.axis - len(shape) + len(given.shape)
    else:
        return None
    if axis == 0:
        return None
    return {
        n: Rows(axis, mine.start, mine.length) if n is source else None
        for n in node.all_input_nodes
    }


def _attention(node: fx.Node, shape: tuple[int, ...], mine: Rows) -> Wanted | None:
    if mine.axis != len(shape) - 2:
        return None
    query, key, mask = (argument(node, n) for n in ("query", "key", "attn_mask"))
    asked, known = seen(query), seen(key)
    if asked is None or known is None or len(asked.shape) != len(shape):
        return None
    if argument(node, "is_causal") and not _sees_all(mine, asked.shape[-2], known.shape[-2]):
        return None
    if query in node.all_input_nodes and query in (key, argument(node, "value"), mask):
        return None
    needs: Wanted = dict.fromkeys(node.all_input_nodes)
    needs[query] = mine
    if isinstance(mask, fx.Node):
        given = seen(mask)
        if given is None or len(given.shape) < 2:
            return None
        axis = len(given.shape) - 2
        if given.shape[axis] != 1:
            needs[mask] = Rows(axis, mine.start, mine.length)
    return needs


def _sees_all(mine: Rows, queries: int, keys: int) -> bool:
    """Whether a causal mask hides nothing from these rows: the last one alone."""
    return queries == keys and mine.length == 1 and mine.start == queries - 1


def _matmul(node: fx.Node, shape: tuple[int, ...], mine: Rows) -> Wanted | None:
    left, right = node.args[:2]
    first = seen(left)
    if left is right or first is None or len(first.shape) != len(shape):
        return None
    if mine.axis != len(shape) - 2 or not isinstance(left, fx.Node):
        return None
    return {n: mine if n is left else None for n in node.all_input_nodes}


def _softmax(node: fx.Node, shape: tuple[int, ...], mine: Rows) -> Wanted | None:
    if _axis(argument(node, "dim"), len(shape)) == mine.axis:
        return None
    return {node.all_input_nodes[0]: mine}


def _same(node: fx.Node, shape: tuple[int, ...], mine: Rows) -> Wanted | None:
    return {node.all_input_nodes[0]: mine} if len(node.all_input_nodes) == 1 else None


_RULES: dict[str, Callable[[fx.Node, tuple[int, ...], Rows], Wanted | None]] = {
    "layer_norm": _layer_norm,
    "transpose": _transpose,
    "permute": _permute,
    "view": _reshape,
    "reshape": _reshape,
    "_unsafe_view": _reshape,
    "scaled_dot_product_attention": _attention,
    "matmul": _matmul,
    "bmm": _matmul,
    "softmax": _softmax,
    "contiguous": _same,
    "clone": _same,
}


def _resize(node: fx.Node, mine: Rows) -> None:
    """Say the number of rows where a node has it among its arguments."""
    name = aten_name(node)
    if name in ("view", "reshape", "_unsafe_view"):
        sizes: list[Any] = list(node.args[1])  # type: ignore[arg-type]
        made = seen(node)
        assert made is not None
        sizes[mine.axis] = mine.length
        # One size may be left to be found out; it stays so only where no other is.
        node.args = (node.args[0], sizes)
        # Narrowed memory has gaps, which a view can't bridge.
        node.target = torch.ops.aten.reshape.default
    elif name == "scaled_dot_product_attention" and argument(node, "is_causal"):
        at = [p.name for p in node.target._schema.arguments].index("is_causal")  # type: ignore
        if at < len(node.args):
            node.args = (*node.args[:at], False, *node.args[at + 1 :])
        else:
            node.kwargs = {**node.kwargs, "is_causal": False}


def _axis(axis: int, count: int) -> int:
    return axis % count if count else 0
