"""How a flow may compute: its precision, and what it may rearrange to be fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


@dataclass(frozen=True)
class FlowOptions:
    """What a flow may do beside running the graph's own kernels one by one.

    The defaults give the plain network's own bits. `fuse` lets it fold batch norms, join layers
    with the activations after them and choose layouts: the same function, rounded differently in
    the last bits. `precision` "bfloat16" computes in bfloat16 and gives the outputs back in
    float32, and rearranges whatever `fuse` says. All choices follow from shapes, none from timing.
    """

    precision: Precision = "float32"
    fuse: bool = False


PLAIN = FlowOptions()
FAST = FlowOptions(fuse=True)


def for_analyses(precision: Precision) -> FlowOptions:
    """How curves are measured, by the server, the shell and in a notebook alike."""
    return FlowOptions(precision=precision, fuse=True)
