"""Recurrent modules of several layers or directions as one node for each.

A module is one node of the graph, so a weight of its last layer would make all of it run again. The
layers call the same kernels on the same numbers as the module itself does.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from worker.engine.fast.kernels import Recurrent
from worker.engine.fast.work import Work, seen

_KINDS = (nn.LSTM, nn.GRU, nn.RNN)


def split_recurrent(work: Work) -> None:
    """Split every recurrent module whose input is a batch of sequences."""
    for node in work.nodes:
        module: Any = work.submodule(node)
        if type(module) not in _KINDS or node.kwargs or not node.args:
            continue
        given = seen(node.args[0])
        plain = given is not None and len(given.shape) == 3 and given.dtype == torch.float32
        if plain and all(p.dtype == torch.float32 for p in module.parameters()):
            _split(work, node, module)


def _split(work: Work, node: fx.Node, module: Any) -> None:
    graph, directions = work.graph, 2 if module.bidirectional else 1
    with graph.inserting_before(node):
        states = _states(graph, node, module)
        out: Any = node.args[0]
        ends: list[list[fx.Node]] = []
        for layer in range(module.num_layers):
            outs = []
            for direction in range(directions):
                at = layer * directions + direction
                own = [graph.call_function(_part, (state, at)) for state in states]
                kernel = work.add(Recurrent(module, layer, direction == 1))
                made = graph.call_module(kernel, (out, *own))
                parts = 3 if module.mode == "LSTM" else 2
                results = [graph.call_function(operator.getitem, (made, i)) for i in range(parts)]
                outs.append(results[0])
                ends.append(results[1:])
            out = graph.call_function(torch.cat, (outs, -1)) if directions == 2 else outs[0]
        columns = zip(*ends, strict=True)
        joined = [graph.call_function(torch.cat, (list(column),)) for column in columns]
        end: Any = tuple(joined) if module.mode == "LSTM" else joined[0]
    _hand_out(work, node, (out, end))


def _states(graph: fx.Graph, node: fx.Node, module: Any) -> list[Any]:
    """The given first states [layers * directions, batch, size], none where they are zeros."""
    if len(node.args) < 2 or node.args[1] is None:
        return []
    given = node.args[1]
    if module.mode != "LSTM":
        return [given]
    if isinstance(given, (tuple, list)):
        return list(given)
    return [graph.call_function(operator.getitem, (given, at)) for at in range(2)]


def _part(state: Tensor, at: int) -> Tensor:
    return state[at : at + 1]


def _hand_out(work: Work, node: fx.Node, value: Any) -> None:
    """Give the readers of a tuple the parts that they ask for."""
    for reader in list(node.users):
        asks = reader.target is operator.getitem and reader.args[0] is node
        if not asks:
            continue
        part = value[reader.args[1]]
        if isinstance(part, fx.Node):
            reader.replace_all_uses_with(part)
            work.graph.erase_node(reader)
        else:
            _hand_out(work, reader, part)
    if not node.users:
        work.graph.erase_node(node)
        return
    with work.graph.inserting_before(node):
        whole = work.graph.call_function(_whole, value)
    node.replace_all_uses_with(whole)
    work.graph.erase_node(node)


def _whole(*parts: Any) -> tuple[Any, ...]:
    return parts
