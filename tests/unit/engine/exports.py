"""Networks as `.pt2` files in the ways users export them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

DYNAMIC, STATIC, STATIC_ONE = "dynamic", "static", "static, one sample"
WAYS = (DYNAMIC, STATIC, STATIC_ONE)


def export(net: nn.Module, inputs: tuple[Tensor, ...], path: Path, way: str = DYNAMIC) -> Path:
    """Writes `net` to `path`; its mode (training or evaluation) is what it is."""
    shapes = None
    if way == DYNAMIC:
        shapes = tuple({0: torch.export.Dim.AUTO} for _ in inputs)
    if way == STATIC_ONE:
        inputs = tuple(tensor[:1] for tensor in inputs)
    program = torch.export.export(net, inputs, dynamic_shapes=shapes)
    torch.export.save(program, str(path))
    return path


def answer(net: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """The scores of the user's own network.

    torch's transformer layers have a fused path for inference, with other rounding, that exports
    never contain; it is switched off here.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            output = net(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    return output["logits"] if isinstance(output, dict) else output
