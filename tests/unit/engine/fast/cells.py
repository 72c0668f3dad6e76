"""Every weight pruned through a flow, beside the whole network run with the same weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from worker.engine.objectives.base import first_tensor
from worker.engine.suffix import Flow, execute


def dense(flow: Flow, inputs: Sequence[Tensor], targets: Sequence[int] = ()) -> list[Any]:
    """All registers after a dense run."""
    registers = flow.registers()
    for at, tensor in zip(flow.inputs, inputs, strict=True):
        registers[at] = tensor
    for at in flow.prefix([flow.output, *targets]):
        registers[at] = flow.step(at)(registers)
    return registers


def through(flow: Flow, weight: Tensor, registers: list[Any]) -> Tensor:
    """The logits of the suffix of a weight as it is now."""
    suffix = flow.suffix(weight)
    scratch = flow.registers()
    for source in suffix.boundary:
        scratch[source] = registers[source]
    execute(suffix.instructions, scratch)
    return scratch[flow.output].clone()


def plain(model: Any, inputs: Sequence[Tensor]) -> Tensor:
    """The logits of the whole network."""
    found = first_tensor(model.module(*[x.clone() for x in inputs]))
    assert found is not None
    return found


def parameters(model: Any, most: int) -> list[tuple[str, Tensor]]:
    """Up to `most` parameters of the network, spread evenly, each tensor once."""
    found = [(name, p.detach()) for name, p in model.module.named_parameters()]
    step = -(-len(found) // most)
    return found[::step]


def pruned(
    model: Any, flow: Flow, inputs: Sequence[Tensor], most: int = 12
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, the flow's logits and the network's, for weights without their smaller half."""
    kept = sorted({at for _, w in parameters(model, most) for at in flow.suffix(w).boundary})
    with torch.no_grad():
        registers = dense(flow, inputs, kept)
        before = registers[flow.output].clone()
        for name, weight in parameters(model, most):
            original = weight.clone()
            rank = weight.abs().flatten().argsort(stable=True).argsort().reshape(weight.shape)
            weight.masked_fill_(rank < weight.numel() // 2, 0)
            flow.refresh(weight)
            found, expected = through(flow, weight, registers), plain(model, inputs)
            weight.copy_(original)
            flow.refresh(weight)
            yield name, found, expected
        after = dense(flow, inputs, kept)[flow.output]
        assert torch.equal(before, after), "the flow was not put back"


def apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference beside the spread of what is expected."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert torch.equal(found.isfinite(), expected.isfinite())
    found, expected = found[expected.isfinite()], expected[expected.isfinite()]
    if not expected.numel():
        return 0.0
    spread = float(expected.max() - expected.min()) or 1.0
    return float((found - expected).abs().max()) / spread
