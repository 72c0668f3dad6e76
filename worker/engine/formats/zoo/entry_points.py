"""Networks of the operator's own packages, registered as entry points.

A package says in its `pyproject.toml`:

    [project.entry-points."prunescope.architectures"]
    tagger = "my_networks.tagger:build"

and `build(**arguments)` returns `(module, example_args)` or `(module, example_args,
example_kwargs)`: the network, and tensors to run it with, two samples or more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import torch
from torch import nn

from worker.engine.formats.zoo.architecture import Architecture, Inputs, unknown_architecture
from worker.engine.formats.zoo.arguments import (
    check_arguments,
    check_names,
    nearest,
    parameter_names,
    wrong_arguments,
)

GROUP = "prunescope.architectures"


def registered() -> dict[str, EntryPoint]:
    """The registered entry points by name."""
    return {point.name: point for point in entry_points(group=GROUP)}


def registered_architecture(name: str, arguments: Mapping[str, Any]) -> Architecture:
    """The network registered under `name`. Raises InvalidInput."""
    points = registered()
    if name not in points:
        own = f" Registered here: {', '.join(sorted(points)[:20])}." if points else ""
        raise unknown_architecture(
            f"There is no architecture named {name[:80]!a}{nearest(name, points)}.{own}",
            'Write "timm:NAME" or "transformers:NAME" for networks of these libraries, or the name '
            f"of an entry point that a package registered in the group {GROUP}.",
        )
    check_arguments(arguments)
    function: Callable[..., Any] = points[name].load()
    known, open_ended = parameter_names(function)
    if not open_ended:
        check_names(arguments, known, f"The architecture {name}")
    made: dict[int, Inputs] = {}

    def build(dtype: torch.dtype) -> nn.Module:
        try:
            result = function(**arguments)
        except (TypeError, ValueError) as error:
            raise wrong_arguments(
                f"The architecture {name} can't be built with these arguments: {str(error)[:300]}"
            ) from error
        if not isinstance(result, tuple) or len(result) not in (2, 3):
            raise unknown_architecture(
                f"The entry point {name} returns no (module, example_args).",
                "Ask whoever runs this server to correct it.",
            )
        module = result[0].eval()
        made[id(module)] = (tuple(result[1]), dict(result[2]) if len(result) == 3 else {})
        return module if dtype is torch.float32 else module.to(dtype)

    def example(module: nn.Module) -> Inputs:
        args, kwargs = made[id(module)]
        dtype = next((p.dtype for p in module.parameters()), torch.float32)

        def fitting(value: Any) -> Any:
            is_float = isinstance(value, torch.Tensor) and value.dtype.is_floating_point
            return value.to(dtype) if is_float else value

        return tuple(map(fitting, args)), {key: fitting(v) for key, v in kwargs.items()}

    return Architecture(name, dict(arguments), build, example)
