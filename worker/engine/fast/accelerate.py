"""From a graph to a faster one that computes the same, or a reason why it stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from worker.engine.aliasing import storage_of
from worker.engine.fast.join import drop_idle, join
from worker.engine.fast.kernels import Kernel
from worker.engine.fast.layout import choose_forms
from worker.engine.fast.narrow import narrow
from worker.engine.fast.precision import to_bfloat16
from worker.engine.fast.split_recurrent import split_recurrent
from worker.engine.fast.work import Work
from worker.engine.flow_options import Precision

TOLERANCE = 1e-4
"""The largest difference in float32 beside the spread of the logits that is taken."""
PARTS = ("narrow", "recurrent", "join", "layout")


@dataclass(frozen=True)
class Accelerated:
    """`module`: the graph to run; `kernels`: by memory address, what is derived from a tensor.

    `reason`: why the graph is the given one, None where it isn't. `difference`: the largest of the
    logits on the samples beside their spread.
    """

    module: fx.GraphModule
    kernels: dict[int, list[Kernel]] = field(default_factory=dict)
    reason: str | None = None
    difference: float = 0.0


def accelerate(
    module: fx.GraphModule,
    sample: Sequence[Tensor],
    precision: Precision = "float32",
    parts: Sequence[str] = PARTS,
) -> Accelerated:
    """A faster graph for inputs like `sample` (some samples; none is changed).

    `module` must have no in-place operators; modules, parameters and buffers are shared with it.
    The new graph was run on the samples and agrees with the given one; where it can't be made or
    doesn't agree, the given graph comes back with the reason.
    """
    reason = unusual(module, sample)
    if reason is not None:
        return Accelerated(module, reason=reason)
    try:
        work = Work(module)
        expected = work.watch(sample)
        # Derived tensors are written again later, in whatever mode the caller is in then.
        with torch.inference_mode(False), torch.no_grad():
            _rewrite(work, sample, precision, parts)
        made = work.watch(sample)
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        return Accelerated(module, reason=f"It could not be rewritten: {error}"[:200])
    difference = disagreement(made, expected)
    if precision == "float32" and difference > TOLERANCE:
        return Accelerated(module, reason="Rounding differed too much.", difference=difference)
    kernels: dict[int, list[Kernel]] = {}
    for part in work.module.modules():
        if isinstance(part, Kernel):
            for held in {storage_of(t) for t in (*part.parameters(), *part.buffers())}:
                kernels.setdefault(held, []).append(part)
    return Accelerated(work.module, kernels, None, difference)


def unusual(module: fx.GraphModule, sample: Sequence[Tensor]) -> str | None:
    """Why a graph is better left alone; None for ordinary ones."""
    for part in module.modules():
        if part._forward_hooks or part._forward_pre_hooks:
            return "It has hooks."
        if part.training and part is not module:
            return "It is in training mode."
    floats = [
        t for t in (*module.parameters(), *module.buffers(), *sample) if t.is_floating_point()
    ]
    if any(t.dtype != torch.float32 for t in floats):
        return "It has other number types than float32."
    if any(t.device.type != "cpu" for t in floats):
        return "It is not on the processor."
    if not torch.backends.mkldnn.is_available():
        return "oneDNN is missing."
    return None


def _rewrite(
    work: Work, sample: Sequence[Tensor], precision: Precision, parts: Sequence[str]
) -> None:
    drop_idle(work)
    if "narrow" in parts:
        narrow(work)
        work.watch(sample)
    if "recurrent" in parts:
        split_recurrent(work)
        work.watch(sample)
    if "join" in parts:
        join(work)
        if "layout" in parts:
            choose_forms(work)
    if precision == "bfloat16":
        to_bfloat16(work, list(sample))
        return
    for part in work.module.modules():
        if isinstance(part, Kernel):
            part.build()


def disagreement(made: Tensor, expected: Tensor) -> float:
    """The largest difference beside the spread (largest less smallest) of what is expected."""
    if made.shape != expected.shape or made.dtype != expected.dtype:
        return float("inf")
    if not expected.is_floating_point():
        return 0.0 if torch.equal(made, expected) else float("inf")
    fine = torch.isfinite(expected)
    if not torch.equal(fine, torch.isfinite(made)) or not bool(fine.any()):
        return 0.0 if torch.equal(fine, torch.isfinite(made)) else float("inf")
    values = expected[fine]
    spread = float(values.max() - values.min()) or float(values.abs().max())
    difference = float((made[fine] - values).abs().max())
    return difference / spread if spread else difference
