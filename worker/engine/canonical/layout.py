"""Networks whose batch is not the first axis: `batch_first=False`, states given as inputs.

Data sets have their samples on the first axis, so the canonical form has too: where the network
wants them second, the graph itself swaps the two axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import fx

from worker.engine.canonical.module import CanonicalGraph
from worker.engine.formats.pt2_schema import TensorMeta

_ATEN = torch.ops.aten
MAX_INPUTS, MAX_LAYOUTS = 4, 6


@dataclass(frozen=True)
class Layout:
    """Which axis is the batch, 0 or 1: of each input, and of the output."""

    inputs: tuple[int, ...]
    output: int

    @property
    def plain(self) -> bool:
        return not self.output and not any(self.inputs)

    def metas(self, metas: Sequence[TensorMeta]) -> list[TensorMeta]:
        """The inputs with the batch first."""
        return [
            replace(meta, shape=(meta.shape[1], meta.shape[0], *meta.shape[2:])) if axis else meta
            for meta, axis in zip(metas, self.inputs, strict=True)
        ]

    def applied(self, module: CanonicalGraph) -> CanonicalGraph:
        """The graph that takes and returns the batch first; modules and tensors are shared."""
        if self.plain:
            return module
        graph = fx.Graph()
        renamed: dict[fx.Node, fx.Node] = {}
        axes = iter(self.inputs)
        swapped: list[fx.Node] = []
        for node in module.graph.nodes:
            if node.op != "placeholder" and swapped:
                # Inputs stay together at the start.
                for given in swapped:
                    renamed[given] = _swap(graph, renamed[given])
                swapped = []
            if node.op == "output" and self.output:
                graph.output(_swap(graph, renamed[node.args[0]]))
                continue
            renamed[node] = graph.node_copy(node, lambda n: renamed[n])
            if node.op == "placeholder" and next(axes):
                swapped.append(node)
        return CanonicalGraph(module, graph)


def _swap(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """The first two axes swapped, in memory of its own as the network would get it."""
    view = graph.call_function(_ATEN.transpose.int, (node, 0, 1))
    made = graph.call_function(_ATEN.contiguous.default, (view,))
    for new in (view, made):
        new.meta["path"] = ""
    return made


def layouts(metas: Sequence[TensorMeta], output: Sequence[int]) -> Iterator[Layout]:
    """The layouts in which all batches have one size, the plain one first.

    `output`: the shape of what the network returns for inputs of these shapes.
    """
    axes = [range(min(len(meta.shape), 2)) for meta in metas]
    if len(metas) > MAX_INPUTS:
        axes = [range(1) for _ in metas]
    found = []
    for chosen in product(*axes):
        sizes = {meta.sizes[axis] for meta, axis in zip(metas, chosen, strict=True)}
        for place, size in enumerate(output[:2]):
            if sizes == {size} and size > 0:
                found.append(Layout(chosen, place))
    found.sort(key=lambda layout: (sum(layout.inputs) + layout.output, layout.output))
    yield from found[:MAX_LAYOUTS]
