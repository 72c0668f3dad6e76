"""Networks of timm by name, never with its weights: nothing is fetched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from worker.engine.formats.zoo.architecture import (
    Architecture,
    Inputs,
    Shapes,
    not_installed,
    unknown_architecture,
)
from worker.engine.formats.zoo.arguments import (
    check_arguments,
    check_names,
    nearest,
    parameter_names,
    wrong_arguments,
)
from worker.engine.formats.zoo.torchvision_stand_in import torchvision_or_stand_in

# Those that `build_model_with_cfg` and the builders of families take for every model.
_COMMON = {"num_classes", "in_chans", "drop_rate", "drop_path_rate", "global_pool", "img_size"}
_NOT_ARGUMENTS = {"cfg", "block_args", "kwargs", "args", "device", "dtype"}
# Buffers that older versions saved and newer ones compute.
_IGNORED = (r"relative_position_index$", r"attn_mask$", r"total_(ops|params)$")


def import_timm() -> Any:
    """timm, never reaching for the network. Raises InvalidInput with the line that installs it."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        with torchvision_or_stand_in():
            import timm
    except ImportError as error:
        raise not_installed("timm") from error
    return timm


def timm_architecture(name: str, arguments: Mapping[str, Any]) -> Architecture:
    """`name`: as `timm.list_models()` or `timm.list_pretrained()` has it. Raises InvalidInput."""
    timm = import_timm()
    models = set(timm.list_models())
    if name not in models and name not in timm.list_pretrained():
        raise unknown_architecture(
            f"timm has no model named {name[:80]!a}{nearest(name, models)}.",
            "Names are those of timm.list_models().",
        )
    check_arguments(arguments)
    used = dict(arguments)
    with torch.device("meta"):
        plain = timm.create_model(name, pretrained=False)
    known, _ = parameter_names(type(plain).__init__)
    takes_size = "img_size" in known or hasattr(plain, "patch_embed")
    check_names(used, (known | _COMMON) - _NOT_ARGUMENTS, f"timm's {name}")
    given = {key: value for key, value in used.items() if takes_size or key != "img_size"}

    def build(dtype: torch.dtype) -> nn.Module:
        try:
            model = timm.create_model(name, pretrained=False, **given)
        except (TypeError, ValueError, KeyError, AssertionError, AttributeError) as error:
            raise wrong_arguments(
                f"timm can't build {name} with these arguments: {str(error)[:300]}",
                "Compare them with the model's own arguments in timm.",
            ) from error
        return model if dtype is torch.float32 else model.to(dtype)

    def example(module: nn.Module) -> Inputs:
        channels, height, width = _size(module, used)
        parameter = next(module.parameters())
        return (torch.randn(2, channels, height, width, dtype=parameter.dtype),), {}

    def infer(module: nn.Module, shapes: Shapes) -> dict[str, Any]:
        return _inferred(module, shapes, used)

    return Architecture(
        f"timm:{name}", used, build, example, infer, ignored=_IGNORED, input_note=_said
    )


def _config(module: nn.Module) -> Mapping[str, Any]:
    config = getattr(module, "pretrained_cfg", None)
    return config if isinstance(config, dict) else {}


def _size(module: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int, int]:
    """Channels, height and width of the images it takes."""
    channels, height, width = _config(module).get("input_size") or (3, 224, 224)
    size = arguments.get("img_size")
    if isinstance(size, list) and len(size) == 2:
        height, width = size
    elif isinstance(size, int):
        height = width = size
    channels = arguments.get("in_chans", channels)
    sizes = (channels, height, width)
    if not all(type(n) is int and 0 < n <= 4096 for n in sizes):
        raise wrong_arguments("The size of the images (img_size, in_chans) makes no sense.")
    return sizes


def _said(inputs: Inputs) -> str:
    channels, height, width = inputs[0][0].shape[1:]
    return (
        f"It takes images of {channels} x {height} x {width}; give in_chans and img_size in "
        "architecture_args for others."
    )


def _first(names: Any) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def _inferred(module: nn.Module, shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    config, found = _config(module), {}
    heads = [f"{name}.weight" for name in _first(config.get("classifier"))]
    stems = [f"{name}.weight" for name in _first(config.get("first_conv"))]
    for argument, keys, axis in (("num_classes", heads, 0), ("in_chans", stems, 1)):
        for key in keys:
            theirs, ours = shapes.get(key), own.get(key)
            if argument in given or not theirs or not ours or len(theirs) != len(ours):
                continue
            if theirs[axis] != ours[axis]:
                found[argument] = theirs[axis]
    return found
