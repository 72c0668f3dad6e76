"""Which weights leave: removal orders, masks, and masks on a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from app.domain.errors import InvalidInput
from app.domain.levels import removed_count, to_level, to_sparsity
from worker.engine.criteria import get_criterion
from worker.engine.weights import find_weight

if TYPE_CHECKING:
    from worker.engine.graph import CanonicalModel
    from worker.engine.units import Unit


def removal_order(scores: Tensor) -> Tensor:
    """Flat indices (int64, length n) in the order in which entries leave, lowest score first.

    The sort is stable: equal scores leave by ascending flat index. NaN scores leave last.
    """
    return torch.sort(scores.detach().reshape(-1), stable=True).indices


def removal_rank(order: Tensor) -> Tensor:
    """The inverse of a removal order: entry i leaves as number `rank[i]`, counted from 0.

    int32 where that is wide enough, because ranks are kept for a whole analysis.
    """
    dtype = torch.int32 if order.numel() < 2**31 else torch.int64
    rank = torch.empty(order.numel(), dtype=dtype)
    rank[order] = torch.arange(order.numel(), dtype=dtype)
    return rank


def mask_of_count(order: Tensor, count: int, shape: Sequence[int]) -> Tensor:
    """Bool mask of `shape`, True = kept, with the first `count` entries of the order removed."""
    kept = torch.ones(order.numel(), dtype=torch.bool)
    kept[order[:count]] = False
    return kept.reshape(tuple(shape))


def mask_for(order: Tensor, sparsity: float, shape: Sequence[int]) -> Tensor:
    """Bool mask of `shape`, True = kept; `round(sparsity * n)` entries are removed."""
    return mask_of_count(order, removed_count(sparsity, order.numel()), shape)


def unit_order(model: CanonicalModel, unit: Unit, criterion: str, seed: int) -> Tensor:
    """The removal order of a unit's weight by a named criterion."""
    weight = find_weight(model, unit.members[0])
    return removal_order(get_criterion(criterion).score(weight, unit=unit.id, seed=seed))


def require_prunable(units: Iterable[Unit], wanted: Iterable[str]) -> dict[str, Unit]:
    """The units of the wanted ids, in the order asked for.

    Raises InvalidInput for an unknown id or a unit that can't be pruned, with the reason.
    """
    known = {unit.id: unit for unit in units}
    result: dict[str, Unit] = {}
    for name in wanted:
        unit = known.get(name)
        if unit is None:
            raise InvalidInput(
                f"The model has no unit called {name!r}.", "Use the unit ids of the model's page."
            )
        if not unit.prunable:
            raise InvalidInput(
                f"{name} can't be pruned. {unit.reason or ''}".strip(),
                "Leave it out, or set its sparsity to 0.",
            )
        result[name] = unit
    return result


def planned_counts(units: Sequence[Unit], sparsities: Mapping[str, float]) -> dict[str, int]:
    """Entries that a plan (unit id to sparsity) removes of each unit it names.

    Sparsities count in whole millionths, as everywhere. Raises InvalidInput for unknown units,
    sparsities outside 0 to 1, and anything but 0 on a unit that can't be pruned.
    """
    levels = {name: to_level(value) for name, value in sparsities.items()}
    require_prunable(units, (name for name, level in levels.items() if level))
    known = {unit.id: unit.size for unit in units}
    for name in levels.keys() - known.keys():
        require_prunable(units, [name])
    return {name: removed_count(to_sparsity(level), known[name]) for name, level in levels.items()}


class MaskSet:
    """Bool masks (True = kept) by unit id, in the shapes of the weights.

    A unit without an entry is left whole. Masks refer to keys, not to a model, so that one set can
    be put on any copy of the network. `total` counts the weights of all prunable units.
    """

    def __init__(
        self, masks: Mapping[str, Tensor], members: Mapping[str, Sequence[str]], total: int
    ) -> None:
        self.masks = dict(masks)
        self._keys = {unit: members[unit][0] for unit in self.masks}
        self._members = {unit: tuple(members[unit]) for unit in self.masks}
        self._removed = {unit: ~mask for unit, mask in self.masks.items()}
        self._total = total

    @classmethod
    def from_counts(
        cls,
        model: CanonicalModel,
        units: Sequence[Unit],
        counts: Mapping[str, int],
        criterion: str = "magnitude",
        seed: int = 0,
    ) -> MaskSet:
        """Remove exactly `counts[unit]` entries of each unit, lowest scores first."""
        chosen = require_prunable(units, (name for name, count in counts.items() if count))
        masks = {
            name: mask_of_count(unit_order(model, unit, criterion, seed), counts[name], unit.shape)
            for name, unit in chosen.items()
        }
        return cls.of_units(masks, units)

    @classmethod
    def of_units(cls, masks: Mapping[str, Tensor], units: Sequence[Unit]) -> MaskSet:
        """Masks made elsewhere, keyed by ids of `units`."""
        total = sum(unit.size for unit in units if unit.prunable)
        return cls(masks, {unit.id: unit.members for unit in units}, total)

    @classmethod
    def from_plan(
        cls,
        model: CanonicalModel,
        units: Sequence[Unit],
        sparsities: Mapping[str, float],
        criterion: str = "magnitude",
        seed: int = 0,
    ) -> MaskSet:
        """The masks of a plan: unit id to sparsity (fraction 0 to 1).

        Scores are taken from the weights as they are now, so call it on the dense network.
        Raises InvalidInput for unknown or unprunable units and sparsities outside 0 to 1.
        """
        counts = planned_counts(units, sparsities)
        return cls.from_counts(model, units, counts, criterion, seed)

    @torch.no_grad()
    def apply_(self, model: CanonicalModel) -> None:
        """Zero the removed weights in place; the rest keeps its bits. Idempotent.

        Cheap enough to follow every optimiser step. Names of the same tensor change together,
        because they share their storage.
        """
        for unit, removed in self._removed.items():
            find_weight(model, self._keys[unit]).masked_fill_(removed, 0)

    @contextmanager
    def applied(self, model: CanonicalModel) -> Iterator[None]:
        """Apply the masks for the time of a `with` block, then restore every weight's bits."""
        weights = [find_weight(model, key) for key in self._keys.values()]
        originals = [weight.clone() for weight in weights]
        try:
            self.apply_(model)
            yield
        finally:
            with torch.no_grad():
                for weight, original in zip(weights, originals, strict=True):
                    weight.copy_(original)

    def removed(self) -> dict[str, int]:
        """Removed entries per unit."""
        return {unit: int(removed.sum()) for unit, removed in self._removed.items()}

    def achieved(self) -> dict[str, float]:
        """Removed fraction per unit, after rounding to whole weights."""
        return {
            unit: count / self.masks[unit].numel() if self.masks[unit].numel() else 0.0
            for unit, count in self.removed().items()
        }

    def sparsity(self) -> float:
        """Removed fraction of the weights of all prunable units together."""
        return sum(self.removed().values()) / self._total if self._total else 0.0

    def as_tensors(self) -> dict[str, Tensor]:
        """Bool masks (True = kept) by parameter key, one entry for every name of a tied tensor."""
        return {key: self.masks[unit] for unit, members in self._members.items() for key in members}
