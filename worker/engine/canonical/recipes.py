"""Which operator calls become which modules: one recipe an operator, one registry.

A recipe looks at a call and says which `nn.Module` computes the same, with which settings, which
of the call's stored tensors play which of its roles, and what the module is then called with.
None: the call stays functional. The module calls the very same kernel, so the result is equal bit
for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from worker.engine.canonical.calls import Call
from worker.engine.canonical.modules import ScaledDotProductAttention


@dataclass(frozen=True)
class Recipe:
    """`roles`: stored tensors by the module's attribute, as argument names of the call.

    `free`: the module has no stored tensors, so it may live anywhere; `name` is what it is called
    where the user has no module of their own for it. `outputs`: where each result of the operator
    is in what the module returns, by nested indices; None: it returns the first result only.
    """

    module: type[nn.Module]
    settings: Mapping[str, Any]
    inputs: tuple[Any, ...]
    roles: Mapping[str, str] = field(default_factory=dict)
    named_inputs: Mapping[str, Any] = field(default_factory=dict)
    free: bool = False
    name: str = ""
    outputs: tuple[tuple[int, ...], ...] | None = None


Maker = Callable[[Call], Recipe | None]
RECIPES: dict[str, Maker] = {}


def recipe(*operators: str) -> Callable[[Maker], Maker]:
    def register(make: Maker) -> Maker:
        for name in operators:
            RECIPES[name] = make
        return make

    return register


def _roles(call: Call, *names: str) -> dict[str, str] | None:
    """The stored tensors among these arguments; None if one of them is a computed tensor."""
    roles = {}
    for name in names:
        if call[name] is None:
            continue
        if call.key(name) is None:
            return None
        roles[name] = name
    return roles


def _each(value: Any, axes: int) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values * axes if len(values) == 1 else values


@recipe("linear.default")
def _linear(call: Call) -> Recipe | None:
    roles, weight = _roles(call, "weight", "bias"), call.meta("weight")
    if not roles or weight is None or len(weight.shape) != 2 or not call.is_tensor("input"):
        return None
    outputs, inputs = weight.sizes
    settings = {"in_features": inputs, "out_features": outputs, "bias": "bias" in roles}
    return Recipe(nn.Linear, settings, (call["input"],), roles)


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@recipe(
    "conv1d.default",
    "conv2d.default",
    "conv3d.default",
    "conv1d.padding",
    "conv2d.padding",
    "conv3d.padding",
    "conv_transpose1d.default",
    "conv_transpose2d.input",
    "conv_transpose3d.input",
    "convolution.default",
)
def _convolution(call: Call) -> Recipe | None:
    roles, weight = _roles(call, "weight", "bias"), call.meta("weight")
    if not roles or "weight" not in roles or weight is None or not call.is_tensor("input"):
        return None
    axes = len(weight.shape) - 2
    if axes not in (1, 2, 3):
        return None
    groups, padding = call["groups"], call["padding"]
    settings = {
        "kernel_size": weight.sizes[2:],
        "stride": _each(call["stride"], axes),
        "padding": padding if isinstance(padding, str) else _each(padding, axes),
        "dilation": _each(call["dilation"], axes),
        "groups": groups,
        "bias": "bias" in roles,
    }
    if call.operator.startswith("conv_transpose") or call["transposed"] is True:
        settings["in_channels"] = weight.sizes[0]
        settings["out_channels"] = weight.sizes[1] * groups
        settings["output_padding"] = _each(call["output_padding"], axes)
        return Recipe(_TRANSPOSED[axes - 1], settings, (call["input"],), roles)
    if any(_each(call["output_padding"] or 0, axes)):
        return None
    settings["in_channels"] = weight.sizes[1] * groups
    settings["out_channels"] = weight.sizes[0]
    return Recipe(_CONVOLUTIONS[axes - 1], settings, (call["input"],), roles)


_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE_NORMS = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def _statistics_norm(call: Call, kinds: Mapping[int, type[nn.Module]]) -> Recipe | None:
    roles = _roles(call, "weight", "bias", "running_mean", "running_var")
    meta = call.meta("input")
    if not roles or meta is None or len(meta.shape) not in kinds or not call.is_tensor("input"):
        return None
    if ("weight" in roles) != ("bias" in roles):
        return None
    tracked = "running_mean" in roles
    if tracked != ("running_var" in roles) or not (tracked or "weight" in roles):
        return None
    some = call.meta("running_mean" if tracked else "weight")
    if some is None or len(some.shape) != 1:
        return None
    # Exports in evaluation mode write 0 for momentum=None (a cumulative average).
    settings = {
        "num_features": some.sizes[0],
        "eps": call["eps"],
        "momentum": call["momentum"] or None,
        "affine": "weight" in roles,
        "track_running_stats": tracked,
    }
    return Recipe(kinds[len(meta.shape)], settings, (call["input"],), roles)


@recipe("batch_norm.default", "_native_batch_norm_legit_no_training.default")
def _batch_norm(call: Call) -> Recipe | None:
    return _statistics_norm(call, _BATCH_NORMS)


@recipe("instance_norm.default")
def _instance_norm(call: Call) -> Recipe | None:
    return _statistics_norm(call, _INSTANCE_NORMS)


@recipe("layer_norm.default", "native_layer_norm.default")
def _layer_norm(call: Call) -> Recipe | None:
    roles = _roles(call, "weight", "bias")
    if not roles or "weight" not in roles or not call.is_tensor("input"):
        return None
    settings = {
        "normalized_shape": tuple(call["normalized_shape"]),
        "eps": call["eps"],
        "bias": "bias" in roles,
    }
    return Recipe(nn.LayerNorm, settings, (call["input"],), roles)


@recipe("rms_norm.default", "_fused_rms_norm.default")
def _rms_norm(call: Call) -> Recipe | None:
    roles = _roles(call, "weight")
    if not roles or not call.is_tensor("input"):
        return None
    settings = {"normalized_shape": tuple(call["normalized_shape"]), "eps": call["eps"]}
    return Recipe(nn.RMSNorm, settings, (call["input"],), roles)


@recipe("group_norm.default", "native_group_norm.default")
def _group_norm(call: Call) -> Recipe | None:
    roles, weight = _roles(call, "weight", "bias"), call.meta("weight")
    if not roles or len(roles) != 2 or weight is None or not call.is_tensor("input"):
        return None
    groups = call["num_groups"] if "num_groups" in call.given else call["group"]
    settings = {"num_groups": groups, "num_channels": weight.sizes[0], "eps": call["eps"]}
    return Recipe(nn.GroupNorm, settings, (call["input"],), roles)


@recipe("embedding.default")
def _embedding(call: Call) -> Recipe | None:
    roles, weight = _roles(call, "weight"), call.meta("weight")
    if not roles or weight is None or len(weight.shape) != 2 or not call.is_tensor("indices"):
        return None
    rows, padding = weight.sizes[0], call["padding_idx"]
    settings = {
        "num_embeddings": rows,
        "embedding_dim": weight.sizes[1],
        "padding_idx": padding if 0 <= padding < rows else None,
        "scale_grad_by_freq": call["scale_grad_by_freq"],
    }
    return Recipe(nn.Embedding, settings, (call["indices"],), roles)


@recipe("prelu.default")
def _prelu(call: Call) -> Recipe | None:
    roles, weight = _roles(call, "weight"), call.meta("weight")
    if not roles or weight is None or len(weight.shape) != 1 or not call.is_tensor("self"):
        return None
    return Recipe(nn.PReLU, {"num_parameters": weight.sizes[0]}, (call["self"],), roles)


@recipe("bilinear.default")
def _bilinear(call: Call) -> Recipe | None:
    roles, weight = _roles(call, "weight", "bias"), call.meta("weight")
    if not roles or weight is None or not call.is_tensor("input1", "input2"):
        return None
    outputs, first, second = weight.sizes
    settings = {
        "in1_features": first,
        "in2_features": second,
        "out_features": outputs,
        "bias": "bias" in roles,
    }
    return Recipe(nn.Bilinear, settings, (call["input1"], call["input2"]), roles)


@recipe("dropout.default", "native_dropout.default", "alpha_dropout.default")
def _dropout(call: Call) -> Recipe | None:
    kind = nn.AlphaDropout if call.operator.startswith("alpha") else nn.Dropout
    return Recipe(kind, {"p": call["p"]}, (call["input"],), free=True, name="dropout")


_CHANNEL_DROPOUTS = {3: nn.Dropout1d, 4: nn.Dropout2d, 5: nn.Dropout3d}


@recipe("feature_dropout.default", "feature_alpha_dropout.default")
def _channel_dropout(call: Call) -> Recipe | None:
    meta = call.meta("input")
    kind: type[nn.Module] = _CHANNEL_DROPOUTS.get(len(meta.shape) if meta else 0, nn.Dropout2d)
    if call.operator.startswith("feature_alpha"):
        kind = nn.FeatureAlphaDropout
    return Recipe(kind, {"p": call["p"]}, (call["input"],), free=True, name="dropout")


@recipe("rrelu.default")
def _rrelu(call: Call) -> Recipe | None:
    settings = {"lower": call["lower"], "upper": call["upper"]}
    return Recipe(nn.RReLU, settings, (call["self"],), free=True, name="rrelu")


@recipe("scaled_dot_product_attention.default")
def _attention(call: Call) -> Recipe | None:
    """Only where dropout was baked in: in evaluation mode it has to be off."""
    if not call["dropout_p"]:
        return None
    settings = {
        "dropout_p": call["dropout_p"],
        "is_causal": call["is_causal"],
        "enable_gqa": call["enable_gqa"],
    }
    inputs = (call["query"], call["key"], call["value"])
    named = {name: call[name] for name in ("attn_mask", "scale") if call[name] is not None}
    return Recipe(
        ScaledDotProductAttention, settings, inputs, named_inputs=named, free=True, name="attention"
    )
