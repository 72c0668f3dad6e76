"""A user's own `nn.Module` in the canonical form, by the way that an upload of it would take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.domain.errors import InvalidInput
from worker.engine.formats.pt2 import load_model
from worker.engine.graph import CanonicalModel


def canonical_form(module: Any, inputs: tuple[Tensor, ...], folder: Path) -> CanonicalModel:
    """The canonical form of `module` in evaluation mode, with weights of its own.

    `inputs` are at least two samples as its forward takes them. Exported by torch.export in this
    process, where the module is trusted anyway, and read like an uploaded file. The module is left
    as it was: weights, modes, gradients. Raises InvalidInput for what can't be exported,
    InvalidFile or UnsupportedOperator for an export that can't be read.
    """
    network = _checked(module)
    path = folder / "model.pt2"
    with _in_evaluation(network):
        try:
            program = torch.export.export(
                network,
                inputs,
                dynamic_shapes=tuple({0: torch.export.Dim.AUTO} for _ in inputs),
            )
            torch.export.save(program, path)
        except Exception as error:
            raise _refused(network, inputs, error) from error
    return load_model(path, "pt2")


def _checked(module: Any) -> nn.Module:
    """The network itself, out of what compiles or distributes it. Raises InvalidInput."""
    network = getattr(module, "_orig_mod", module)
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        network = network.module
    if not isinstance(network, nn.Module):
        raise InvalidInput(
            f"The model is a {type(module).__name__}, not a torch.nn.Module.",
            "Pass the network itself, with its weights loaded.",
        )
    tensors = [*network.named_parameters(), *network.named_buffers()]
    elsewhere = [(name, tensor) for name, tensor in tensors if tensor.device.type != "cpu"]
    if elsewhere:
        name, tensor = elsewhere[0]
        raise InvalidInput(
            f"The model is not on the CPU: {name} is on {tensor.device}.",
            "It has no weights yet; load them first."
            if tensor.device.type == "meta"
            else "Pass copy.deepcopy(model).cpu().",
        )
    if not any(True for _ in network.parameters()):
        raise InvalidInput("The model has no parameters.", "There is nothing to prune in it.")
    return network


@contextmanager
def _in_evaluation(network: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _refused(network: nn.Module, inputs: tuple[Tensor, ...], error: Exception) -> InvalidInput:
    """Why an export failed: because the network doesn't take these inputs, or for its code."""
    lines = str(error).strip().splitlines()
    said = lines[0][:300] if lines else type(error).__name__
    try:
        with torch.no_grad():
            network(*[tensor.clone() for tensor in inputs])
    except Exception as failure:
        lines = str(failure).strip().splitlines()
        shapes = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in inputs)
        return InvalidInput(
            f"The model does not run on what the loader yields ({shapes}): "
            f"{lines[0][:300] if lines else type(failure).__name__}",
            "The loader has to yield (inputs..., labels), the inputs as the model's forward takes "
            "them.",
        )
    return InvalidInput(
        f"The model can't be exported: {said}",
        "torch.export must be able to trace its forward; control flow that depends on values has "
        "to go.",
    )
