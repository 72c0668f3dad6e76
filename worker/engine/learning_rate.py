"""How fast a pruned network is retrained."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from worker.engine.graph import CanonicalModel
from worker.engine.masks import MaskSet
from worker.engine.weights import find_weight

WARM_UP = 0.1
# How long networks are usually trained from scratch. ALLR wants the share of it that retraining
# takes; an uploaded file doesn't tell.
TYPICAL_EPOCHS = 100

RANGE_STEPS = 60
RANGE_LOWEST, RANGE_HIGHEST = 1e-4, 3.0
_SMOOTHING = 0.8
_GIVE_UP = 3.0
_MARGIN = 3.0


def scheduled_rate(peak: float, step: int, steps: int) -> float:
    """The rate of step `step` (from 0) of `steps`: 10 % linear warm-up, then linear to zero."""
    warm = max(1, math.ceil(WARM_UP * steps))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (steps - step) / (steps - warm + 1)


def adaptive_peak(highest: float, change: float, sparsity: float, epochs: int) -> float:
    """ALLR (Zimmer, Spiegel, Pokutta, 2023): the peak rate that fits the damage done.

    `highest` is the largest rate the network trains well with, `change` the relative L2 change of
    the pruned weights, `sparsity` the removed fraction of them, `epochs` the length of retraining.
    The result lies between `highest` times the share of a usual training, and `highest`.
    """
    least = highest * min(1.0, epochs / TYPICAL_EPOCHS)
    if sparsity <= 0:
        return least
    return min(highest, max(least, highest * change / math.sqrt(sparsity)))


def weight_change(model: CanonicalModel, masks: MaskSet) -> tuple[float, float]:
    """`(norm(W - W_p) / norm(W), removed fraction)` over the masked weights of a dense network.

    W_p is what `masks.prune_` makes of W: with its new weights, where a criterion gives such.
    """
    rewritten = masks.new_weights()
    changed = whole = 0.0
    gone = size = 0
    seen: set[int] = set()
    for key, kept in masks.as_tensors().items():
        weight = find_weight(model, key)
        if weight.data_ptr() in seen:
            continue
        seen.add(weight.data_ptr())
        squares = weight.double().square()
        whole += float(squares.sum())
        if key in rewritten:
            pruned = rewritten[key].double().masked_fill(~kept, 0)
            changed += float((weight.double() - pruned).square().sum())
        else:
            changed += float(squares[~kept].sum())
        gone += int((~kept).sum())
        size += kept.numel()
    return (
        math.sqrt(changed / whole) if whole > 0 else 0.0,
        gone / size if size else 0.0,
    )


def range_test(train_step: Callable[[int, float], float], steepness: float = 1.0) -> float:
    """The largest rate with which the loss still falls well (range test: Smith, 2017).

    `train_step(i, rate)` makes optimiser step i at this rate and returns its loss before the step.
    At most 60 steps with rates growing geometrically from 1e-4 to 3; it ends early when the
    smoothed loss is three times its minimum, or not finite. The answer is a third of the rate at
    the minimum, because the minimum is already the edge. For a loss that may curve `steepness`
    (1 or more) times as much, rates begin that much lower and grow as fast, in more steps.
    """
    growth = (RANGE_HIGHEST / RANGE_LOWEST) ** (1 / (RANGE_STEPS - 1))
    lowest = RANGE_LOWEST / steepness
    average, best, best_rate = 0.0, math.inf, lowest
    for step in range(RANGE_STEPS + math.ceil(math.log(steepness) / math.log(growth))):
        rate = lowest * growth**step
        loss = train_step(step, rate)
        if not math.isfinite(loss):
            break
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        smoothed = average / (1 - _SMOOTHING ** (step + 1))
        if smoothed < best:
            best, best_rate = smoothed, rate
        elif smoothed > _GIVE_UP * best and step > RANGE_STEPS // 6:
            break
    return max(lowest, best_rate / _MARGIN)


def seeded(seed: int, *numbers: int) -> int:
    """One 63-bit seed for torch out of several numbers."""
    generator = torch.Generator().manual_seed(seed & (2**63 - 1))
    for number in numbers:
        drawn = int(torch.randint(0, 2**62, (), generator=generator))
        generator.manual_seed((drawn ^ number) & (2**63 - 1))
    return int(torch.randint(0, 2**62, (), generator=generator))
