"""Building a network whose arguments came from outside, without believing how large it gets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from app.domain.errors import InvalidInput
from worker.engine.formats.state_dict import StateDict
from worker.engine.formats.zoo.architecture import Architecture

_SLACK = 1 << 26
# A network has about as many tensors as its file, and fewer modules than twice that.
_TENSORS_EACH, _MORE_TENSORS, _MODULES_EACH = 4, 2_000, 2


def _too_large(name: str, what: str) -> InvalidInput:
    message = f"The architecture {name} with these arguments has more than {what}."
    return InvalidInput(
        message,
        "It is not the network the weights belong to. Check architecture_args.",
        fields={"architecture_args": message},
    )


@contextlib.contextmanager
def limited(name: str, numbers: int, tensors: int) -> Iterator[None]:
    """Inside, a network that gets more than so many numbers or tensors, or twice as many modules,
    is given up while it is built. Raises InvalidInput."""
    modules = _MODULES_EACH * tensors
    counts = {"numbers": 0, "tensors": 0, "modules": 0}

    def tensor(_: nn.Module, __: str, value: Tensor | None) -> None:
        if value is None:
            return
        counts["numbers"] += value.numel()
        counts["tensors"] += 1
        if counts["numbers"] > numbers:
            raise _too_large(name, f"{numbers:,} numbers, far more than the file")
        if counts["tensors"] > tensors:
            raise _too_large(name, f"{tensors:,} tensors, far more than the file")

    def module(_: nn.Module, __: str, value: nn.Module | None) -> None:
        counts["modules"] += 1
        if counts["modules"] > modules:
            raise _too_large(name, f"{modules:,} modules, far more than the file's tensors need")

    hooks = (
        nn_module.register_module_parameter_registration_hook(tensor),
        nn_module.register_module_buffer_registration_hook(tensor),
        nn_module.register_module_module_registration_hook(module),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(state: StateDict) -> int:
    return _TENSORS_EACH * len(state.tensors) + _MORE_TENSORS


def outline(architecture: Architecture, state: StateDict) -> nn.Module:
    """The network without values (on the meta device), where it can be built so.

    Raises InvalidInput for arguments that don't work or build something far larger than the upload.
    """
    try:
        with (
            limited(architecture.name, 8 * (state.numel + _SLACK), _tensors(state)),
            torch.device("meta"),
        ):
            return architecture.build(torch.float32).eval()
    except (NotImplementedError, RuntimeError) as error:
        if _is_memory(error):
            raise _too_large(architecture.name, "fits into memory") from error
    # A few networks compute with their own values while they are built.
    return real(architecture, state, torch.float32)


def real(architecture: Architecture, state: StateDict, dtype: torch.dtype) -> nn.Module:
    """The network with values of its own, in evaluation mode. Raises InvalidInput."""
    try:
        with limited(architecture.name, 2 * state.numel + _SLACK, _tensors(state)):
            return architecture.build(dtype).eval()
    except (RuntimeError, MemoryError, OverflowError) as error:
        if _is_memory(error):
            raise _too_large(architecture.name, "fits into memory") from error
        message = f"The architecture {architecture.name} can't be built: {str(error)[:300]}"
        raise InvalidInput(
            message, "Check architecture_args.", fields={"architecture_args": message}
        ) from error


def _is_memory(error: Any) -> bool:
    return isinstance(error, MemoryError) or "allocate" in str(error)
