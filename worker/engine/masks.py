"""Which weights leave: removal orders, masks, and masks on a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from app.domain.errors import InvalidInput
from app.domain.levels import removed_count, to_level, to_sparsity
from worker.engine.criteria import Refusal, Removal, removal_order, removal_rank, removals
from worker.engine.weights import find_weight

if TYPE_CHECKING:
    from worker.engine.formats.splits import Split
    from worker.engine.graph import CanonicalModel
    from worker.engine.units import Unit

__all__ = [
    "MaskSet",
    "mask_for",
    "mask_of_count",
    "planned_counts",
    "planned_removals",
    "removal_order",
    "removal_rank",
    "require_prunable",
    "unit_order",
]


def mask_of_count(order: Tensor, count: int, shape: Sequence[int]) -> Tensor:
    """Bool mask of `shape`, True = kept, with the first `count` entries of the order removed."""
    kept = torch.ones(order.numel(), dtype=torch.bool)
    kept[order[:count]] = False
    return kept.reshape(tuple(shape))


def mask_for(order: Tensor, sparsity: float, shape: Sequence[int]) -> Tensor:
    """Bool mask of `shape`, True = kept; `round(sparsity * n)` entries are removed."""
    return mask_of_count(order, removed_count(sparsity, order.numel()), shape)


def unit_order(model: CanonicalModel, unit: Unit, criterion: str, seed: int) -> Tensor:
    """The removal order (flat indices) of a unit's weight by a criterion that needs no data.

    Raises InvalidInput where there is none, with the reason.
    """
    found = planned_removals(model, [unit], criterion, seed)[unit.id]
    return torch.argsort(found.rank.reshape(-1))


def planned_removals(
    model: CanonicalModel,
    units: Iterable[Unit],
    criterion: str,
    seed: int,
    train: Split | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Removal]:
    """The removal of each of these units by one criterion, by unit id.

    A weight of zeros only, which no criterion can rank, leaves by flat index: nothing changes.
    Raises InvalidInput for a unit without an order, with the reason.
    """
    chosen = list(units)
    blank = {
        unit.id: Removal(removal_rank(torch.arange(unit.size)).reshape(tuple(unit.shape)))
        for unit in chosen
        if unit.prunable and not bool(find_weight(model, unit.members[0]).any())
    }
    rest = [unit for unit in chosen if unit.id not in blank]
    found = removals(model, rest, [criterion], seed=seed, train=train, should_stop=should_stop)
    result = dict(blank)
    for (unit_id, _), removal in found.items():
        if isinstance(removal, Refusal):
            raise InvalidInput(
                f"{unit_id} can't be pruned by the criterion {criterion}. {removal.reason}",
                "Set its sparsity to 0, or choose another criterion.",
            )
        result[unit_id] = removal
    return {unit.id: result[unit.id] for unit in chosen}


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
    be put on any copy of the network. `total` counts the weights of all prunable units. `weights`:
    by unit id, the whole new weight where a criterion changes what stays too (SparseGPT); `prune_`
    puts it there, and `apply_` keeps its zeros.
    """

    def __init__(
        self,
        masks: Mapping[str, Tensor],
        members: Mapping[str, Sequence[str]],
        total: int,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.masks = dict(masks)
        self.weights = dict(weights or {})
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
        train: Split | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> MaskSet:
        """Remove exactly `counts[unit]` entries of each unit, lowest scores first.

        `train`: the split that criteria learn from, None where there is none. Every unit's order,
        and new weight where there is one, comes from the dense network, whatever leaves beside it.
        Raises InvalidInput for units that can't be pruned, or not by this criterion.
        """
        chosen = require_prunable(units, (name for name, count in counts.items() if count))
        found = planned_removals(model, chosen.values(), criterion, seed, train, should_stop)
        weights: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        for name in chosen:
            masks[name] = found[name].kept(counts[name])
            if (rewritten := found[name].weight(counts[name])) is not None:
                weights[name] = rewritten
        return cls.of_units(masks, units, weights)

    @classmethod
    def of_units(
        cls,
        masks: Mapping[str, Tensor],
        units: Sequence[Unit],
        weights: Mapping[str, Tensor] | None = None,
    ) -> MaskSet:
        """Masks made elsewhere, keyed by ids of `units`; `weights` as for the class."""
        total = sum(unit.size for unit in units if unit.prunable)
        return cls(masks, {unit.id: unit.members for unit in units}, total, weights)

    @classmethod
    def from_plan(
        cls,
        model: CanonicalModel,
        units: Sequence[Unit],
        sparsities: Mapping[str, float],
        criterion: str = "magnitude",
        seed: int = 0,
        train: Split | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> MaskSet:
        """The masks of a plan: unit id to sparsity (fraction 0 to 1).

        Scores are taken from the weights as they are now, so call it on the dense network.
        Raises InvalidInput as `from_counts`, and for sparsities outside 0 to 1.
        """
        counts = planned_counts(units, sparsities)
        return cls.from_counts(model, units, counts, criterion, seed, train, should_stop)

    @torch.no_grad()
    def prune_(self, model: CanonicalModel) -> None:
        """Put the new weights in place, where there are any, and zero what leaves: once, at first.

        Call it on the dense network; `apply_` is for what comes after.
        """
        for unit, rewritten in self.weights.items():
            find_weight(model, self._keys[unit]).copy_(rewritten)
        self.apply_(model)

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
        """Prune for the time of a `with` block, then restore every weight's bits."""
        weights = [find_weight(model, key) for key in self._keys.values()]
        originals = [weight.clone() for weight in weights]
        try:
            self.prune_(model)
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

    def new_weights(self) -> dict[str, Tensor]:
        """The rewritten weights by parameter key, one entry for every name of a tied tensor."""
        return {key: weight for unit, weight in self.weights.items() for key in self._members[unit]}
