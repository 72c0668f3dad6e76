"""What a plan is compared with: simpler ways of removing as many weights.

Every baseline removes exactly as many weights in total as the plan does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from app.domain.errors import InvalidInput
from worker.engine.masks import MaskSet, planned_counts
from worker.engine.weights import find_weight

if TYPE_CHECKING:
    from worker.engine.graph import CanonicalModel
    from worker.engine.units import Unit

BASELINES = ("uniform", "random", "global-magnitude")


def baseline_masks(
    name: str,
    model: CanonicalModel,
    units: Sequence[Unit],
    plan: Mapping[str, float],
    seed: int = 0,
) -> MaskSet:
    """The masks of a named baseline at the total of `plan` (unit id to sparsity).

    uniform: the same sparsity in every prunable unit, smallest weights first. random: the plan's
    own sparsities, weights drawn at random. global-magnitude: one threshold on |w| over all
    prunable units (Han et al., 2015). Call it on the dense network. Raises InvalidInput for an
    unknown name or a plan that doesn't fit the units.
    """
    counts = planned_counts(units, plan)
    if name == "random":
        return MaskSet.from_counts(model, units, counts, "random", seed)
    prunable = [unit for unit in units if unit.prunable]
    total = sum(counts.values())
    if name == "uniform":
        shares = share_out(total, [unit.size for unit in prunable])
        even = {unit.id: share for unit, share in zip(prunable, shares, strict=True)}
        return MaskSet.from_counts(model, units, even, "magnitude", seed)
    if name == "global-magnitude":
        return _global_magnitude(model, units, prunable, total)
    raise InvalidInput(
        f"There is no baseline called {name!r}.", f"Use one of: {', '.join(BASELINES)}."
    )


def share_out(total: int, sizes: Sequence[int]) -> list[int]:
    """Split `total` in proportion to `sizes` into whole numbers that add up to it.

    Largest remainder (Hamilton's method); equal remainders go to the earlier one. No share is
    larger than its size as long as `total` is no larger than the sum of sizes.
    """
    whole = sum(sizes)
    if not 0 <= total <= whole:
        raise ValueError(f"{total} of {whole}")
    if whole == 0:
        return [0 for _ in sizes]
    shares = [total * size // whole for size in sizes]
    remainders = [total * size % whole for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-remainders[i], i))
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    return shares


def _global_magnitude(
    model: CanonicalModel, units: Sequence[Unit], prunable: Sequence[Unit], total: int
) -> MaskSet:
    magnitudes = [find_weight(model, unit.members[0]).abs().reshape(-1) for unit in prunable]
    if not magnitudes:
        return MaskSet.of_units({}, units)
    # torch.cat promotes to the widest dtype, which holds every narrower value exactly.
    order = torch.sort(torch.cat(magnitudes), stable=True).indices
    kept = torch.ones(order.numel(), dtype=torch.bool)
    kept[order[:total]] = False
    parts = kept.split([unit.size for unit in prunable])
    masks = {
        unit.id: part.reshape(tuple(unit.shape)).clone()
        for unit, part in zip(prunable, parts, strict=True)
        if not bool(part.all())
    }
    return MaskSet.of_units(masks, units)
