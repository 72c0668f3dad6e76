"""Graph nodes as plain functions over a list of registers.

A step reads its inputs from the registers of the nodes that made them. Steps call exactly the
kernels the modules themselves call, with the same arguments, so results agree bit for bit; what
they leave out is Python between the kernels.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

Registers = list[Any]
Step = Callable[[Registers], Any]


def compile_step(node: fx.Node, module: fx.GraphModule, register: Mapping[fx.Node, int]) -> Step:
    """The function of a call_module, call_function or call_method node."""
    if node.op == "call_module":
        return _call(_plain_module(module.get_submodule(str(node.target))), node, register)
    if node.op == "call_method":
        return _call(_method(str(node.target)), node, register)
    if node.op == "call_function" and callable(node.target):
        return _call(node.target, node, register)
    raise TypeError(f"{node.op} node {node.name} is not a computation")


def attribute(module: nn.Module, path: str) -> Any:
    """The value of a get_attr node."""
    return operator.attrgetter(path)(module)


def _plain_module(module: nn.Module) -> Callable[..., Any]:
    """A module's computation in evaluation mode without the cost of `nn.Module.__call__`."""
    if module._forward_hooks or module._forward_pre_hooks:
        return module
    kind = type(module)
    if kind is nn.Linear:
        weight, bias = module.weight, module.bias
        return lambda x: functional.linear(x, weight, bias)
    if kind is nn.ReLU and not module.inplace:
        return torch.relu
    if kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return _batch_norm(module)
    if kind in _CONVOLUTIONS and module.padding_mode == "zeros":
        convolve = _CONVOLUTIONS[kind]
        rest = (module.weight, module.bias, module.stride, module.padding, module.dilation)
        groups = module.groups
        return lambda x: convolve(x, *rest, groups)
    return module.forward


_CONVOLUTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: torch.conv1d,
    nn.Conv2d: torch.conv2d,
    nn.Conv3d: torch.conv3d,
}


def _batch_norm(module: Any) -> Callable[..., Any]:
    if module.running_mean is None or module.running_var is None or module.training:
        return module.forward
    mean, variance, weight, bias = (
        module.running_mean,
        module.running_var,
        module.weight,
        module.bias,
    )
    momentum = 0.0 if module.momentum is None else module.momentum
    epsilon, accelerated = module.eps, torch.backends.cudnn.enabled
    check = module._check_input_dim

    def normalise(x: Tensor) -> Tensor:
        check(x)
        return torch.batch_norm(
            x, weight, bias, mean, variance, False, momentum, epsilon, accelerated
        )

    return normalise


def _call(target: Callable[..., Any], node: fx.Node, register: Mapping[fx.Node, int]) -> Step:
    args, kwargs = node.args, node.kwargs
    tail_is_constant = not _reads(args[1:]) and not _reads(kwargs)
    if args and isinstance(args[0], fx.Node) and tail_is_constant:
        first, rest, named = register[args[0]], tuple(args[1:]), dict(kwargs)
        if not rest and not named:
            return lambda r: target(r[first])
        if not named:
            return lambda r: target(r[first], *rest)
        return lambda r: target(r[first], *rest, **named)
    if len(args) == 2 and not kwargs and all(isinstance(a, fx.Node) for a in args):
        left, right = (register[a] for a in args)
        return lambda r: target(r[left], r[right])
    make_args = [_maker(a, register) for a in args]
    make_kwargs = {name: _maker(a, register) for name, a in kwargs.items()}
    if not make_kwargs:
        return lambda r: target(*[make(r) for make in make_args])
    return lambda r: target(
        *[make(r) for make in make_args], **{name: make(r) for name, make in make_kwargs.items()}
    )


def _method(method: str) -> Callable[..., Any]:
    return lambda receiver, *args, **kwargs: getattr(receiver, method)(*args, **kwargs)


def _reads(argument: Any) -> bool:
    found: list[fx.Node] = []
    fx.node.map_arg(argument, lambda n: found.append(n) or n)
    return bool(found)


def _maker(argument: Any, register: Mapping[fx.Node, int]) -> Step:
    """A function that builds one (possibly nested) argument from the registers."""
    if isinstance(argument, fx.Node):
        return operator.itemgetter(register[argument])
    if not _reads(argument):
        return lambda r: argument
    if isinstance(argument, (list, tuple)):
        parts = [_maker(part, register) for part in argument]
        kind = list if isinstance(argument, list) else tuple
        return lambda r: kind([part(r) for part in parts])
    if isinstance(argument, dict):
        named = {key: _maker(part, register) for key, part in argument.items()}
        return lambda r: {key: part(r) for key, part in named.items()}
    if isinstance(argument, slice):
        bounds = [_maker(b, register) for b in (argument.start, argument.stop, argument.step)]
        return lambda r: slice(*[bound(r) for bound in bounds])
    raise TypeError(f"argument of type {type(argument).__name__}")
