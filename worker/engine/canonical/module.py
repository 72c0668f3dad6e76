"""The GraphModule of the canonical form: it keeps every module, used by the graph or not."""

from __future__ import annotations

import copy
from typing import Any

from torch import fx, nn


class CanonicalGraph(fx.GraphModule):
    """A GraphModule that keeps its whole module tree, in the user's order.

    fx itself keeps only what the graph refers to, in the order of use, and forgets the rest again
    in every copy: keys of unused layers would be lost.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, class_name: str = "Canonical") -> None:
        super().__init__(root, graph, class_name)
        self._modules.clear()
        self._parameters.clear()
        self._buffers.clear()
        self._modules.update(root._modules)
        self._parameters.update(root._parameters)
        self._buffers.update(root._buffers)
        self._non_persistent_buffers_set = set(root._non_persistent_buffers_set)

    def __deepcopy__(self, memo: dict[int, Any]) -> CanonicalGraph:
        root = nn.Module()
        root._modules.update(copy.deepcopy(self._modules, memo))
        root._parameters.update(copy.deepcopy(self._parameters, memo))
        root._buffers.update(copy.deepcopy(self._buffers, memo))
        root._non_persistent_buffers_set = set(self._non_persistent_buffers_set)
        copied = CanonicalGraph(root, copy.deepcopy(self.graph))
        copied.training = self.training
        memo[id(self)] = copied
        return copied
