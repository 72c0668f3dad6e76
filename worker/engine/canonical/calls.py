"""An operator call with its arguments by name, as the recipes and the builder see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import torch

from worker.engine.formats.pt2_json import malformed
from worker.engine.formats.pt2_schema import NodeData, Ref, TensorMeta


@dataclass(frozen=True)
class Call:
    """`given`: the arguments in the file; `keys`: state_dict key of each stored tensor, by name.

    `zeros`: values of the graph that are nothing but zeros.
    """

    node: NodeData
    function: Callable[..., Any]
    given: Mapping[str, Any]
    defaults: Mapping[str, Any]
    keys: Mapping[str, str]
    tensors: Mapping[str, TensorMeta]
    zeros: AbstractSet[str] = frozenset()

    @property
    def operator(self) -> str:
        """`conv2d.padding` and the like; other names for arithmetic on sizes."""
        return self.node.target.removeprefix("torch.ops.aten.")

    def __getitem__(self, name: str) -> Any:
        """The argument of that name, or the operator's default for it.

        `name.3` is the fourth item of a list.
        """
        if "." in name:
            name, _, place = name.partition(".")
            return self[name][int(place)]
        if name in self.given:
            return self.given[name]
        return self.defaults.get(name)

    def key(self, name: str) -> str | None:
        """The state_dict key of a stored tensor argument; None for anything else."""
        value = self[name]
        return self.keys.get(value.name) if isinstance(value, Ref) else None

    def meta(self, name: str) -> TensorMeta | None:
        value = self[name]
        return self.tensors.get(value.name) if isinstance(value, Ref) else None

    def is_zeros(self, value: Any) -> bool:
        """Whether a value is a tensor of nothing but zeros."""
        return isinstance(value, Ref) and value.name in self.zeros

    def is_tensor(self, *names: str) -> bool:
        """Whether all of these arguments are tensors."""
        return all(isinstance(self[name], Ref) for name in names)


def bind(
    node: NodeData,
    function: Callable[..., Any],
    keys: Mapping[str, str],
    tensors: Mapping[str, TensorMeta],
    zeros: AbstractSet[str] = frozenset(),
) -> Call:
    """Match the arguments with the operator's own schema. Raises InvalidFile if they don't."""
    if not isinstance(function, torch._ops.OpOverload):
        given = {str(at): argument.value for at, argument in enumerate(node.inputs)}
        return Call(node, function, given, {}, keys, tensors, zeros)
    schema = function._schema.arguments
    names = {argument.name for argument in schema}
    given = {argument.name: argument.value for argument in node.inputs}
    if not names.issuperset(given) or len(given) != len(node.inputs):
        raise malformed(f"{node.target[:120]} is called with arguments it does not have")
    defaults = {a.name: a.default_value for a in schema if a.has_default_value()}
    if any(a.name not in given and a.name not in defaults for a in schema):
        raise malformed(f"{node.target[:120]} is called without an argument it needs")
    return Call(node, function, given, defaults, keys, tensors, zeros)


def arguments(call: Call) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments for the function itself."""
    if not isinstance(call.function, torch._ops.OpOverload):
        return list(call.given.values()), {}
    positional: list[Any] = []
    keyword: dict[str, Any] = {}
    gap = False
    for argument in call.function._schema.arguments:
        if argument.name not in call.given:
            gap = True
        elif gap or argument.kwarg_only:
            keyword[argument.name] = call.given[argument.name]
        else:
            positional.append(call.given[argument.name])
    return positional, keyword
