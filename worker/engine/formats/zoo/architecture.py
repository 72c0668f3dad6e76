"""What a library says about one of its networks, and where names of networks are looked up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from app.domain.errors import InvalidInput

Shapes = Mapping[str, tuple[int, ...]]
Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def _same(module: nn.Module, keys: list[str]) -> dict[str, str]:
    return {key: key for key in keys}


def _no_note(inputs: Inputs) -> str:
    return ""


def _nothing(module: nn.Module, shapes: Shapes) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Architecture:
    """One network of a library, not yet built.

    `arguments`: as they are used. `build(dtype)`: the network with weights of its own, wherever
    `torch.device` says; float numbers in `dtype`. `example(module)`: arguments and keywords to run
    it with, two samples. `infer(module, shapes)`: arguments that can be read off the shapes of the
    uploaded tensors where they differ from those of the network. `rename(module, keys)`: keys of
    old files to those the library uses now. `ignored`: patterns of keys that old files hold and the
    network has no use for. `input_note(example)`: a sentence about the sizes that are fixed now.
    `notes`: sentences about how it was chosen.
    """

    name: str
    arguments: dict[str, Any]
    build: Callable[[torch.dtype], nn.Module]
    example: Callable[[nn.Module], Inputs]
    infer: Callable[[nn.Module, Shapes], dict[str, Any]] = _nothing
    rename: Callable[[nn.Module, list[str]], dict[str, str]] = _same
    ignored: tuple[str, ...] = ()
    input_note: Callable[[Inputs], str] = _no_note
    notes: list[str] = field(default_factory=list)


def candidates(name: str, arguments: Mapping[str, Any]) -> list[Architecture]:
    """What an architecture's name can mean: mostly one network, several where keys must decide.

    Raises InvalidInput for unknown names, libraries that are not installed, and wrong arguments.
    """
    library, separator, rest = name.partition(":")
    if separator and library == "timm":
        from worker.engine.formats.zoo.timm_models import timm_architecture

        return [timm_architecture(rest, arguments)]
    if separator and library == "transformers":
        from worker.engine.formats.zoo.transformers_models import transformers_architectures

        return transformers_architectures(rest, arguments)
    from worker.engine.formats.zoo.entry_points import registered_architecture

    return [registered_architecture(name, arguments)]


def unknown_architecture(message: str, hint: str = "") -> InvalidInput:
    return InvalidInput(message, hint, fields={"architecture": message})


def not_installed(library: str) -> InvalidInput:
    """The sentence for a library that is not there; the line installs it."""
    return unknown_architecture(
        f"{library} is not installed here.",
        f"Whoever runs this server installs it with: pip install 'prunescope[{library}]'",
    )
