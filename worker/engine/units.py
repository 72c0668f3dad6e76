"""What can be pruned, and why something can't be: granularity `weight`, one parameter a unit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from worker.engine.graph import CanonicalModel

UNUSED = "The network never uses it."
NOT_FLOAT = "Its values are not floating-point numbers."
VECTOR = "It is a vector (a bias, or the scale and offset of a norm): too small to gain anything."
EMPTY = "It is empty."
NORM = "It is the scale or offset of a norm: without its entries the features they scale are gone."


@dataclass(frozen=True)
class Unit:
    """One parameter tensor. `members`: all its keys, its `id` first; `reason`: why not prunable."""

    id: str
    size: int
    shape: tuple[int, ...]
    members: tuple[str, ...]
    prunable: bool
    reason: str | None


def weight_units(model: CanonicalModel) -> list[Unit]:
    """Every parameter of the network, in the order in which the network uses them.

    A tied parameter is one unit with all its keys. Unused parameters come last.
    """
    members: dict[str, list[str]] = {}
    parameters: dict[str, nn.Parameter] = {}
    for key, value in model.state_dict().items():
        if isinstance(value, nn.Parameter):
            first = model.tied.get(key, key)
            members.setdefault(first, []).append(key)
            parameters.setdefault(first, value)
    used = _used_in_order(model)
    order = [k for k in used if k in parameters] + [k for k in parameters if k not in used]
    modules = {
        key for key in used if isinstance(_owner(model, key), (nn.Linear, nn.Embedding, *_CONVS))
    }
    norms = _norm_parameters(model, used)
    return [
        _unit(key, parameters[key], tuple(members[key]), key in used, key in modules, key in norms)
        for key in order
    ]


def _norm_parameters(model: CanonicalModel, keys: Iterable[str]) -> set[str]:
    """The parameters that norms scale or shift with, as modules or as operators."""
    readers: dict[str, set[str]] = {}
    for node in model.module.graph.nodes:
        if node.op == "get_attr":
            names = {getattr(user.target, "_opname", "") for user in node.users}
            readers.setdefault(model.tied.get(str(node.target), str(node.target)), set()).update(
                name.removeprefix("_fused_") for name in names
            )
    return {
        key
        for key in keys
        if isinstance(_owner(model, key), _NORMS)
        or (readers.get(key) and readers[key] <= _NORM_NAMES)
    }


_NORMS = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)
_NORM_NAMES = frozenset(
    [
        "layer_norm",
        "native_layer_norm",
        "rms_norm",
        "group_norm",
        "native_group_norm",
        "batch_norm",
        "instance_norm",
    ]
)


_CONVS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def _owner(model: CanonicalModel, key: str) -> nn.Module:
    return model.module.get_submodule(key.rpartition(".")[0])


def _used_in_order(model: CanonicalModel) -> dict[str, None]:
    """Keys (the first of tied ones) in execution order."""
    used: dict[str, None] = {}
    for node in model.module.graph.nodes:
        for key in _read_by(model, node):
            used.setdefault(model.tied.get(key, key))
    return used


def _read_by(model: CanonicalModel, node: fx.Node) -> list[str]:
    # A stored tensor counts where it is first needed, not where the graph happens to fetch it.
    keys = [str(source.target) for source in node.all_input_nodes if source.op == "get_attr"]
    if node.op == "call_module":
        module = model.module.get_submodule(str(node.target))
        keys = [f"{node.target}.{name}" for name, _ in module.named_parameters()] + keys
    return keys


def _unit(
    key: str, value: Tensor, members: tuple[str, ...], used: bool, is_layer: bool, is_norm: bool
) -> Unit:
    reason = None
    if not used:
        reason = UNUSED
    elif not value.is_floating_point():
        reason = NOT_FLOAT
    elif value.numel() == 0:
        reason = EMPTY
    elif is_norm and value.dim() > 1:
        reason = NORM
    elif value.dim() < 2 or (not is_layer and sum(size > 1 for size in value.shape) < 2):
        reason = VECTOR
    return Unit(key, value.numel(), tuple(value.shape), members, reason is None, reason)
