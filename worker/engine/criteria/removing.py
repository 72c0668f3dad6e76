"""The removals of units by criteria: who leaves first, or why there is no such order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from app.domain.errors import InvalidInput
from worker.engine.criteria.base import ALL_ZERO, CannotRank, Criterion, Refusal, Removal, Subject
from worker.engine.criteria.registry import get_criterion, operators_own
from worker.engine.pulse import Pulse
from worker.engine.weights import find_weight

if TYPE_CHECKING:
    from worker.engine.formats.splits import Split
    from worker.engine.graph import CanonicalModel
    from worker.engine.units import Unit

Removals = dict[tuple[str, str], Removal | Refusal]


def removals(
    model: CanonicalModel,
    units: Sequence[Unit],
    criteria: Sequence[str],
    *,
    seed: int,
    train: Split | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Removals:
    """How each unit is pruned by each criterion, by `(unit id, criterion)`; or why it can't be.

    Everything is taken from the weights as they are now, so call it on the dense network. What
    criteria need of `train` is read in one pass for all of them; the others never touch it. The
    same inputs and seed give the same ranks bit for bit. Raises InvalidInput for an unknown
    criterion, Stopped when `should_stop()` turns true.
    """
    pulse = Pulse(should_stop, on_progress, float(len(units) * max(1, len(criteria))))
    found: Removals = {}
    chosen = _chosen(criteria)
    for unit in units:
        for name, criterion in chosen.items():
            found[unit.id, name] = (
                Refusal(criterion)
                if isinstance(criterion, str)
                else _removal(model, unit, criterion, seed)
            )
            pulse.beat(1.0)
    pulse.tell()
    return found


def _chosen(names: Sequence[str]) -> Mapping[str, Criterion | str]:
    """The criteria by name; for a registered one that is broken, the sentence why."""
    chosen: dict[str, Criterion | str] = {}
    for name in dict.fromkeys(names):
        try:
            chosen[name] = get_criterion(name)
        except InvalidInput:
            faults = operators_own()[1]
            if name not in faults:
                raise
            chosen[name] = faults[name]
    return chosen


def _removal(
    model: CanonicalModel, unit: Unit, criterion: Criterion, seed: int
) -> Removal | Refusal:
    if not unit.prunable:
        return Refusal(unit.reason or "It can't be pruned.")
    weight = find_weight(model, unit.members[0])
    if not bool(weight.any()):
        return Refusal(ALL_ZERO)
    try:
        return criterion.removal(Subject(model, unit, weight, seed))
    except CannotRank as refusal:
        return Refusal(str(refusal))
