"""Activations and their in-place twins: the same numbers, written where the argument was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from worker.engine.fast.work import Work, aten_name

_ATEN = torch.ops.aten
_TWINS = frozenset(
    {
        *("relu", "relu6", "gelu", "silu", "mish", "sigmoid", "tanh", "hardtanh", "hardswish"),
        *("hardsigmoid", "leaky_relu", "elu", "selu", "celu", "clamp_min"),
    }
)
_MODULES: dict[type[nn.Module], Callable[[Any], Callable[[Tensor], Tensor]]] = {
    nn.ReLU: lambda m: torch.relu_,
    nn.Sigmoid: lambda m: torch.sigmoid_,
    nn.Tanh: lambda m: torch.tanh_,
    nn.SiLU: lambda m: _ATEN.silu_.default,
    nn.GELU: lambda m: _given(_ATEN.gelu_.default, (), {"approximate": m.approximate}),
    nn.ReLU6: lambda m: _given(_ATEN.hardtanh_.default, (0.0, 6.0), {}),
    nn.LeakyReLU: lambda m: _given(_ATEN.leaky_relu_.default, (m.negative_slope,), {}),
    nn.Hardswish: lambda m: _ATEN.hardswish_.default,
}
_FUNCTIONS: dict[Any, Callable[[Tensor], Tensor]] = {
    torch.relu: torch.relu_,
    functional.relu: torch.relu_,
    torch.sigmoid: torch.sigmoid_,
    torch.tanh: torch.tanh_,
}


def in_place(work: Work, node: fx.Node) -> Callable[[Tensor], Tensor] | None:
    """The in-place twin of an activation's node; None where it isn't one that we know."""
    module = work.submodule(node)
    if module is not None:
        make = _MODULES.get(type(module))
        return make(module) if make else None
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    rest, named = tuple(node.args[1:]), dict(node.kwargs)
    if len(node.all_input_nodes) != 1 or node.all_input_nodes[0] is not node.args[0]:
        return None
    if node.target in _FUNCTIONS:
        return _FUNCTIONS[node.target] if not rest and not named else None
    name = aten_name(node)
    overload = getattr(node.target, "_overloadname", None)
    if name not in _TWINS or overload != "default":
        return None
    twin = getattr(getattr(_ATEN, f"{name}_", None), "default", None)
    return _given(twin, rest, named) if twin is not None else None


def is_activation(work: Work, node: fx.Node) -> bool:
    return in_place(work, node) is not None


def _given(
    function: Callable[..., Tensor], rest: tuple[Any, ...], named: dict[str, Any]
) -> Callable[[Tensor], Tensor]:
    if not rest and not named:
        return function
    return lambda x: function(x, *rest, **named)
