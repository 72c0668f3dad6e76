"""Which weights leave, as a recipe's arguments say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from worker.engine.baselines import baseline_masks
from worker.engine.graph import CanonicalModel
from worker.engine.masks import MaskSet
from worker.engine.units import Unit


def masks_of(model: CanonicalModel, units: Sequence[Unit], pruning: Mapping[str, Any]) -> MaskSet:
    """The masks of `{sparsities: {unit: fraction}, criterion, seed}`, or of a baseline to it.

    With `baseline` (a name) as many weights leave in all, chosen in that simpler way. Call it on
    the dense network. Raises InvalidInput for a plan that doesn't fit the units.
    """
    sparsities, seed = pruning["sparsities"], pruning["seed"]
    if pruning.get("baseline") is not None:
        return baseline_masks(pruning["baseline"], model, units, sparsities, seed)
    return MaskSet.from_plan(model, units, sparsities, pruning["criterion"], seed)
