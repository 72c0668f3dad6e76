"""Which form each convolution takes, by the shapes alone.

Measured on Zen 4 with oneDNN, float32 and bfloat16, batches of 32 to 128: channels last is as fast
or faster (up to 1.5 times) on maps from 8 x 8 on and slower (down to 0.7) on smaller ones, and on
maps of 2 x 2 a matrix product is twice as fast as the convolution, most of which is outside.
"""

from __future__ import annotations

import math

import torch
from torch import fx, nn

from worker.engine.fast.activations import is_activation
from worker.engine.fast.join import Then
from worker.engine.fast.kernels import Convolution, Form
from worker.engine.fast.work import Work, aten_name, seen

_LAST_FROM = 64
"""Positions of a map from which channels last pays."""
_MATRIX_SHARE = 0.5
"""The most multiplications of a matrix product beside those of the convolution it replaces."""
_MATRIX_ENTRIES = 16 * 2**20
"""What all such matrices of a network may hold: 64 MiB in float32."""
_MODULES = (
    *(nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
_NAMES = frozenset(
    {
        *("add", "sub", "mul", "div", "maximum", "minimum", "cat", "max_pool2d", "avg_pool2d"),
        *("adaptive_avg_pool2d", "mean", "sum", "amax", "upsample_nearest2d"),
        *("upsample_bilinear2d",),
    }
)


def choose_forms(work: Work) -> None:
    """Set the form of every convolution, and put standard layout before who relies on it."""
    lasting: set[fx.Node] = set()
    room = _MATRIX_ENTRIES
    for node in work.nodes:
        module = work.submodule(node)
        if isinstance(module, Convolution):
            module.map_in = seen(node.args[0]).shape[2:]  # type: ignore[union-attr]
            entries = _entries(node)
            module.form = _form(module, node, entries <= room)
            room -= entries if module.form == "matrix" else 0
            if module.form == "channels last":
                lasting.add(node)
            continue
        touched = [source for source in node.all_input_nodes if source in lasting]
        if not touched:
            continue
        if _keeps_layout(work, node, module):
            lasting.add(node)
            continue
        for source in touched:
            with work.graph.inserting_before(node):
                standard = work.graph.call_method("contiguous", (source,))
            standard.meta = dict(source.meta)
            node.replace_input_with(source, standard)
    output = next(node for node in work.graph.nodes if node.op == "output")
    for source in output.all_input_nodes:
        if source in lasting:
            with work.graph.inserting_before(output):
                output.replace_input_with(source, work.graph.call_method("contiguous", (source,)))


def _entries(node: fx.Node) -> int:
    """Of the matrix from all inputs to all outputs of one sample."""
    given, made = seen(node.args[0]), seen(node)
    return math.prod(given.shape[1:]) * math.prod(made.shape[1:]) if given and made else 0


def _form(kernel: Convolution, node: fx.Node, room: bool) -> Form:
    layer, given, made = kernel.layer, seen(node.args[0]), seen(node)
    if layer.weight.dim() != 4 or given is None or made is None:
        return "plain"
    outside, inside = math.prod(made.shape[2:]), math.prod(given.shape[2:])
    taps = math.prod(layer.weight.shape[2:])
    if (
        layer.groups == 1
        and not isinstance(layer.padding, str)
        and taps > 1
        and inside * outside <= _MATRIX_SHARE * taps * outside
        and room
    ):
        return "matrix"
    depthwise = layer.groups == given.shape[1] == made.shape[1]
    if min(outside, inside) >= _LAST_FROM and (layer.groups == 1 or depthwise):
        return "channels last"
    return "plain"


def _keeps_layout(work: Work, node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node takes any layout, gives the same numbers, and hands the layout on."""
    made = seen(node)
    if made is None or made.dtype not in (torch.float32, torch.bfloat16):
        return False
    if isinstance(module, Then):
        module = module.module
    if module is not None:
        return isinstance(module, _MODULES) or is_activation(work, node)
    name = node.meta.get("layout") or aten_name(node)
    return name in _NAMES or is_activation(work, node)
