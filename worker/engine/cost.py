"""What each layer costs: parameters, and multiply-accumulates for one sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

_HUGE = 1 << 62


@dataclass(frozen=True)
class Layer:
    """A module that has parameters or multiplies.

    `path` in the user's network ("" is the network itself), `type`: class name, `parameters`: own
    numbers, tied ones with the first layer that has them, `macs`: multiply-accumulates for ONE
    sample, `output_shape`: of the layer's last operator, None where the batch size stands.
    """

    path: str
    type: str
    parameters: int
    macs: int
    output_shape: tuple[int | None, ...]


@dataclass(frozen=True)
class NodeCost:
    """Multiply-accumulates of a node on the inputs given, and the shape of its result."""

    macs: int
    shape: tuple[int, ...] | None


class _Meter(fx.Interpreter):
    """Runs a graph once, counting at every node.

    Products and convolutions are counted as torch.utils.flop_counter does (2 operations a
    multiply-accumulate); everything else counts as nothing.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.costs: dict[fx.Node, NodeCost] = {}

    def run_node(self, n: fx.Node) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = super().run_node(n)
        if isinstance(result, int) and not -_HUGE < result < _HUGE:
            raise ValueError("a size is out of range")
        shape = tuple(result.shape) if isinstance(result, Tensor) else None
        self.costs[n] = NodeCost(counter.get_total_flops() // 2, shape)
        return result


def measure(
    module: fx.GraphModule, inputs: Sequence[Tensor]
) -> tuple[dict[fx.Node, NodeCost], Any]:
    """What every node costs on these inputs, and the network's output."""
    meter = _Meter(module)
    with torch.no_grad():
        output = meter.run(*inputs)
    return meter.costs, output
