"""Values that are nothing but zeros: the states that recurrent layers start with."""

from __future__ import annotations

from collections.abc import Iterable

from worker.engine.canonical.flatten import output_names, refs
from worker.engine.formats.pt2_schema import NodeData

_PREFIX = "torch.ops.aten."
_ZEROS = frozenset(["zeros.default", "zeros_like.default", "new_zeros.default"])
_FILLED = frozenset(["full.default", "full_like.default", "new_full.default"])
_KEEPING_TEXT = """
    view.default reshape.default expand.default expand_as.default repeat.default contiguous.default
    clone.default detach.default alias.default unsqueeze.default squeeze.default squeeze.dim
    squeeze.dims permute.default transpose.int select.int slice.Tensor unbind.int split.Tensor
    chunk.default stack.default cat.default to.dtype to.dtype_layout to.device type_as.default
    _to_copy.default
"""
_KEEPING = frozenset(_KEEPING_TEXT.split())
"""Operators that make zeros of zeros."""


def all_zeros(nodes: Iterable[NodeData]) -> frozenset[str]:
    """The names of values that are zeros for every input."""
    found: set[str] = set()
    for node in nodes:
        name = node.target.removeprefix(_PREFIX)
        read = {ref for argument in node.inputs[:1] for ref in refs(argument.value)}
        filled = {a.name: a.value for a in node.inputs}.get("fill_value")
        if (
            name in _ZEROS
            or (name in _FILLED and type(filled) in (int, float) and filled == 0)
            or (name in _KEEPING and read and read <= found)
        ):
            found.update(output_names(node))
    return frozenset(found)
