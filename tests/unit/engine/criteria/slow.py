"""The criteria once more, slowly: one sample, one column, one pair of filters at a time.

Shares no code with the engine but the networks, the splits and their losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.engine.criteria import Refusal, Removal

Loss = Callable[[Any, Tensor], Tensor]


def cross_entropy(output: Any, labels: Tensor) -> Tensor:
    if isinstance(output, dict):
        output = output["logits"]
    if isinstance(output, tuple):
        output = output[0]
    return functional.cross_entropy(output.float(), labels)


def gradients(
    model: Any, split: Any, keys: Sequence[str], loss: Loss = cross_entropy
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The means over samples of g and g^2 in float64, by one backward pass a sample."""
    named = dict(model.module.named_parameters(remove_duplicate=False))
    parameters = [named[key] for key in keys]
    before = [parameter.requires_grad for parameter in parameters]
    mean = {key: torch.zeros(named[key].shape, dtype=torch.float64) for key in keys}
    squared = {key: value.clone() for key, value in mean.items()}
    model.module.eval()
    for parameter in parameters:
        parameter.requires_grad_(True)
    split = split.cast([spec.dtype for spec in model.inputs])
    for row in range(len(split)):
        inputs, labels = split.gather(np.array([row] * (model.fixed_batch or 1)))
        output = model.module(*inputs)
        if model.fixed_batch:
            output = output[:1]
        found = torch.autograd.grad(loss(output, labels[:1]), parameters, allow_unused=True)
        for key, gradient in zip(keys, found, strict=True):
            if gradient is not None:
                mean[key] += gradient.double() / len(split)
                squared[key] += gradient.double() ** 2 / len(split)
    for parameter, learns in zip(parameters, before, strict=True):
        parameter.requires_grad_(learns)
    return mean, squared


def inputs_of(model: Any, split: Any, path: str) -> Tensor:
    """All that goes into a Linear, [places, features], or a Conv2d of one group, as patches."""
    caught: list[Tensor] = []
    module = model.module.get_submodule(path)

    def catch(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].detach()
        if isinstance(module, nn.Conv2d):
            x = functional.unfold(
                x, module.kernel_size, module.dilation, module.padding, module.stride
            ).transpose(1, 2)
        caught.append(x.reshape(-1, x.shape[-1]).double())

    hook = module.register_forward_pre_hook(catch)
    with torch.no_grad():
        for row in range(len(split)):
            model.module(*split.batch(row, row + 1)[0])
    hook.remove()
    return torch.cat(caught)


def wanda_kept(weight: Tensor, inputs: Tensor, count: int) -> Tensor:
    """Kept entries when `count`, a multiple of the rows, leave: as many in each row."""
    matrix = weight.detach().reshape(len(weight), -1).double()
    kept = torch.ones_like(matrix, dtype=torch.bool)
    for row in range(len(matrix)):
        scores = [
            abs(float(matrix[row, at])) * float(inputs[:, at].norm())
            for at in range(matrix.shape[1])
        ]
        order = sorted(range(len(scores)), key=lambda at: (scores[at], at))
        for at in order[: count // len(matrix)]:
            kept[row, at] = False
    return kept.reshape(weight.shape)


def hessian(inputs: Tensor) -> Tensor:
    """2 X X^T, damped by 1 % of its mean diagonal."""
    found = 2 * inputs.t() @ inputs
    return found + 0.01 * found.diagonal().mean() * torch.eye(len(found), dtype=found.dtype)


def pivots(found: Tensor) -> list[Tensor]:
    """For every column the first column of the inverse of what is left of the Hessian from it on.

    Its first entry is [chol(H^-1)]_jj^2.
    """
    return [torch.linalg.inv(found[at:, at:])[:, 0] for at in range(len(found))]


def sparsegpt_scores(weight: Tensor, inputs: Tensor) -> Tensor:
    """w^2 over the pivot, in the weight's shape."""
    matrix = weight.detach().reshape(len(weight), -1).double()
    first = torch.stack([column[0] for column in pivots(hessian(inputs))])
    return (matrix**2 / first).reshape(weight.shape)


def sparsegpt(weight: Tensor, inputs: Tensor, count: int, block: int = 128) -> Tensor:
    """The pruned and updated weight: each removal is made up for by the columns after it."""
    matrix = weight.detach().reshape(len(weight), -1).double().clone()
    left = pivots(hessian(inputs))
    rows, columns = matrix.shape
    taken = 0
    for start in range(0, columns, block):
        end = min(start + block, columns)
        share = count * rows * end // matrix.numel() - taken
        taken += share
        scores = [
            (float(matrix[row, at] ** 2 / left[at][0]), row * (end - start) + at - start)
            for row in range(rows)
            for at in range(start, end)
        ]
        gone = {place for _, place in sorted(scores)[:share]}
        for row in range(rows):
            for at in range(start, end):
                if row * (end - start) + at - start in gone:
                    matrix[row, at:] -= matrix[row, at] / left[at][0] * left[at]
                    matrix[row, at] = 0.0
    return matrix.reshape(weight.shape)


def distances(weight: Tensor) -> list[float]:
    """For every filter the sum of its distances to the others."""
    rows = [row.reshape(-1).double() for row in weight.detach()]
    return [sum(float((one - other).norm()) for other in rows) for one in rows]


def lamp(values: Sequence[float]) -> list[float]:
    """w_u^2 over the sum of w_v^2 of all that come no earlier in the order of magnitude."""
    order = sorted(range(len(values)), key=lambda at: (abs(values[at]), at))
    scores = [0.0] * len(values)
    for position, at in enumerate(order):
        later = sum(values[other] ** 2 for other in order[position:])
        scores[at] = values[at] ** 2 / later if later else 0.0
    return scores


def removal(found: Mapping[tuple[str, str], Removal | Refusal], unit: str, name: str) -> Removal:
    """The removal that has to be there."""
    made = found[unit, name]
    assert isinstance(made, Removal), made
    return made


def assert_ascending(rank: Tensor, scores: Tensor, tolerance: float = 1e-5) -> None:
    """Entries leave by ascending score: none before one that scores less, but for rounding."""
    flat = rank.reshape(-1).long()
    assert sorted(flat.tolist()) == list(range(len(flat)))
    ordered = torch.empty(len(flat), dtype=torch.float64)
    ordered[flat] = scores.reshape(-1).double()
    highest = ordered.cummax(0).values
    assert bool((highest - ordered <= tolerance * highest.abs() + 1e-30).all())
