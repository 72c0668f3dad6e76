"""Arguments of architectures: plain JSON, known names, nothing that reaches outside."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from app.domain.errors import InvalidInput

MAX_DEPTH = 5
MAX_ITEMS = 2_000
MAX_TEXT = 200
_LARGEST = 1_000_000
# Names that load files, fetch from elsewhere, run other code or change what is built into something
# that is not the network itself.
_REFUSED = {
    "_attn_implementation",
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "auto_map",
    "backbone",
    "backbone_config",
    "backbone_kwargs",
    "cache_dir",
    "checkpoint_path",
    "code_revision",
    "config_file",
    "device",
    "dtype",
    "experts_implementation",
    "exportable",
    "feature_cfg",
    "features_only",
    "kernel_config",
    "kwargs_filter",
    "model_cfg",
    "name_or_path",
    "no_jit",
    "out_indices",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_custom_load",
    "pretrained_filter_fn",
    "pretrained_model_args",
    "pretrained_model_name_or_path",
    "pretrained_strict",
    "quantization_config",
    "revision",
    "scriptable",
    "state_dict",
    "torch_dtype",
    "transformers_version",
    "trust_remote_code",
    "use_kernels",
    "use_pretrained_backbone",
    "use_timm_backbone",
}


def wrong_arguments(message: str, hint: str = "") -> InvalidInput:
    return InvalidInput(message, hint, fields={"architecture_args": message})


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """ " (did you mean 'a' or 'b'?)", or nothing."""
    close = difflib.get_close_matches(name, list(known), count, 0.6)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Plain, small, and none of the refused names at any depth. Raises InvalidInput."""
    _check_value("architecture_args", dict(arguments), 0)


def _check_value(name: str, value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise wrong_arguments(
            f"The argument {name!a} is nested too deeply.",
            f"Arguments are plain values, or lists and objects of them, {MAX_DEPTH} deep at most.",
        )
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, (int, float)):
        if not math.isfinite(value) or abs(value) > _LARGEST:
            raise wrong_arguments(
                f"The argument {name!a} is out of range; numbers go up to {_LARGEST:,}."
            )
        return
    if isinstance(value, str):
        if len(value) > MAX_TEXT or "/" in value or "\\" in value:
            raise wrong_arguments(
                f"The argument {name!a} is no plain word.",
                "Paths and addresses are not accepted.",
            )
        return
    if isinstance(value, (list, dict)):
        if len(value) > MAX_ITEMS:
            raise wrong_arguments(f"The argument {name!a} has more than {MAX_ITEMS:,} entries.")
        pairs = value.items() if isinstance(value, dict) else ((name, item) for item in value)
        for key, item in pairs:
            if not isinstance(key, str) or len(key) > MAX_TEXT:
                raise wrong_arguments(f"The argument {name!a} has a name that is no word.")
            if isinstance(value, dict) and key in _REFUSED:
                raise wrong_arguments(
                    f"The argument {key!r} is not accepted: it loads, fetches or runs something, "
                    "or changes what is built.",
                    "Give only what describes the network's shape.",
                )
            _check_value(key, item, depth + 1)
        return
    raise wrong_arguments(f"The argument {name!a} is not JSON.")


def check_names(arguments: Iterable[str], known: Iterable[str], owner: str) -> None:
    """Raises InvalidInput with the nearest names for arguments that `owner` doesn't take."""
    names = set(known)
    unknown = [name for name in arguments if name not in names]
    if not unknown:
        return
    listed = "; ".join(f"{name!r}{nearest(name, names)}" for name in unknown[:5])
    raise wrong_arguments(
        f"{owner} takes no argument {listed}.",
        f"It takes: {', '.join(sorted(names - _REFUSED)[:60])}.",
    )


def parameter_names(function: Callable[..., Any]) -> tuple[set[str], bool]:
    """The names a function takes, and whether it takes any other too."""
    names, open_ended = set[str](), False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.name != "self":
            names.add(parameter.name)
    return names, open_ended
