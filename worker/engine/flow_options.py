"""How a flow may compute: its precision, and what it may rearrange to be fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


@dataclass(frozen=True)
class FlowOptions:
    """What a flow may do beside running the graph's own kernels one by one.

    The defaults give the plain network's own bits. `fuse` lets it fold batch norms, join layers
    with the activations after them and choose layouts: the same function, rounded differently in
    the last bits. `precision` "bfloat16" computes in bfloat16 and gives the outputs back in
    float32. `profile` are the choices of an earlier flow of the same network (`Flow.profile`, plain
    JSON), taken as they are instead of being made anew.
    """

    precision: Precision = "float32"
    fuse: bool = False
    profile: Mapping[str, Any] | None = None


PLAIN = FlowOptions()
FAST = FlowOptions(fuse=True)
