"""What each layer costs: parameters, and multiply-accumulates for one sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from worker.engine.canonical.modules import ScaledDotProductAttention
from worker.engine.canonical.recurrence import CHECKED

_RECURRENT = frozenset(CHECKED.values())
"""Their third argument are the weights. Which kernel runs them differs between machines."""
_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


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
    multiply-accumulate), recurrent layers as their weights times the steps they are applied at,
    attention as its two products without regard to masks; everything else counts as nothing.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.costs: dict[fx.Node, NodeCost] = {}

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        # The counter hooks into gradients, and fails on views of parameters that have none.
        value = super().get_attr(target, args, kwargs)
        return value.detach() if isinstance(value, Tensor) else value

    def run_node(self, n: fx.Node) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = super().run_node(n)
        shape = tuple(result.shape) if isinstance(result, Tensor) else None
        macs = counter.get_total_flops() // 2
        owner = self._module_of(n)
        if n.target in _RECURRENT or isinstance(owner, nn.RNNBase):
            steps = math.prod(self.env[n.args[0]].shape[:-1])
            if owner is not None:
                # The outputs at every step, samples first.
                first = result[0] if owner.batch_first else result[0].transpose(0, 1)
                shape = tuple(first.shape)
            weights = owner.parameters() if owner else [self.env[w] for w in n.args[2]]
            macs = steps * sum(weight.numel() for weight in weights if weight.dim() == 2)
        elif n.target is _ATTENTION or isinstance(owner, ScaledDotProductAttention):
            query, key, value = (self.env[source] for source in n.args[:3])
            macs = query.numel() * key.shape[-2]
            macs += math.prod(query.shape[:-1]) * value.shape[-2] * value.shape[-1]
        self.costs[n] = NodeCost(macs, shape)
        return result

    def _module_of(self, n: fx.Node) -> Any:
        return self.module.get_submodule(str(n.target)) if n.op == "call_module" else None


def measure(
    module: fx.GraphModule, inputs: Sequence[Tensor]
) -> tuple[dict[fx.Node, NodeCost], Any]:
    """What every node costs on these inputs, and the network's output."""
    meter = _Meter(module)
    with torch.no_grad():
        output = meter.run(*inputs)
    return meter.costs, output
