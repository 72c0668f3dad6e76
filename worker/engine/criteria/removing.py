"""The removals of units by criteria: who leaves first, or why there is no such order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from app.domain.errors import InputMismatch, InvalidInput
from worker.engine.criteria.base import (
    ALL_ZERO,
    CannotRank,
    Criterion,
    Refusal,
    Removal,
    Statistic,
    Subject,
)
from worker.engine.criteria.moments import MOST_COLUMNS, Moments
from worker.engine.criteria.observing import GRADIENTS, Data, observe
from worker.engine.criteria.registry import get_criterion, operators_own
from worker.engine.criteria.samples import one_thread, sample_count, sample_rows
from worker.engine.criteria.watching import Wiring
from worker.engine.objectives import objective_for
from worker.engine.pulse import Pulse
from worker.engine.weights import find_weight

if TYPE_CHECKING:
    from worker.engine.formats.splits import Split
    from worker.engine.graph import CanonicalModel
    from worker.engine.objectives import Objective
    from worker.engine.units import Unit

Removals = dict[tuple[str, str], Removal | Refusal]

NO_TRAIN = "It has to see training samples, and the data set has no split train."
NO_LABELS = "It needs the loss of training samples, and none of them has a label."
_BUDGET_BYTES = 2**30
"""What a pass may add up at once; units beyond that wait for another pass."""


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

    Everything is taken from the weights as they are now, so call it on the dense network, outside
    of `torch.inference_mode`. What criteria need of `train` is read in one pass for all of them (at
    most 1,024 seeded samples; several passes where the sums would take more than 1 GiB); the others
    never touch it. The same inputs and seed give the same ranks bit for bit, on any number of
    threads. Raises InvalidInput for an unknown criterion, Stopped when `should_stop()` turns true.
    """
    run = _Run(model, units, _chosen(criteria), seed, train)
    with one_thread():
        return run.found(should_stop, on_progress)


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


@dataclass(frozen=True)
class _Run:
    model: CanonicalModel
    units: Sequence[Unit]
    criteria: Mapping[str, Criterion | str]
    seed: int
    train: Split | None

    def found(
        self,
        should_stop: Callable[[], bool] | None,
        on_progress: Callable[[float], None] | None,
    ) -> Removals:
        """In the order of units, then of criteria."""
        fixed = {unit.id: reason for unit in self.units if (reason := self._reason(unit))}
        open_units = [unit for unit in self.units if unit.id not in fixed]
        learning = {
            name: criterion
            for name, criterion in self.criteria.items()
            if isinstance(criterion, Criterion) and criterion.statistics
        }
        data, blocked = self._data(learning) if open_units else (None, {})
        learning = {name: c for name, c in learning.items() if name not in blocked}
        groups = list(self._groups(open_units, learning)) if data is not None else []
        pulse = Pulse(should_stop, on_progress, 1.0 + len(groups))
        pulse.check()
        learnt: Removals = {}
        for group in groups:
            assert data is not None
            wanted = {unit.id: _wanted(learning) for unit in group}
            moments = observe(self.model, group, wanted, data, pulse)
            for unit in group:
                for name, criterion in learning.items():
                    learnt[unit.id, name] = self._removal(unit, criterion, moments[unit.id])
                    pulse.beat()
            del moments
        found: Removals = {}
        for unit in self.units:
            for name, criterion in self.criteria.items():
                if unit.id in fixed or isinstance(criterion, str) or name in blocked:
                    said = criterion if isinstance(criterion, str) else blocked.get(name, "")
                    found[unit.id, name] = Refusal(fixed.get(unit.id) or said)
                elif name in learning:
                    found[unit.id, name] = learnt[unit.id, name]
                else:
                    found[unit.id, name] = self._removal(unit, criterion, None)
                pulse.beat(1.0 / max(1, len(self.units) * len(self.criteria)))
        pulse.tell()
        return found

    def _reason(self, unit: Unit) -> str | None:
        """Why no criterion can rank this unit."""
        if not unit.prunable:
            return unit.reason or "It can't be pruned."
        return None if bool(find_weight(self.model, unit.members[0]).any()) else ALL_ZERO

    def _data(self, learning: Mapping[str, Criterion]) -> tuple[Data | None, dict[str, str]]:
        """The samples to learn from, and for criteria that can't learn from them the reason."""
        if not learning:
            return None, {}
        train = self.train
        if train is None or not len(train):
            return None, dict.fromkeys(learning, NO_TRAIN)
        rows = sample_rows(train, sample_count(self.model), self.seed)
        judging = [name for name, c in learning.items() if c.statistics & GRADIENTS]
        objective, reason = self._objective(train, rows) if judging else (None, None)
        blocked = dict.fromkeys(judging, reason) if reason is not None else {}
        return Data(train, rows, objective), blocked

    def _objective(self, train: Split, rows: np.ndarray) -> tuple[Objective | None, str | None]:
        try:
            objective = objective_for(self.model, train)
        except InputMismatch as error:
            return None, f"The training samples don't fit the network. {error.message}"
        labels = torch.from_numpy(np.array(train.labels[rows]))
        return objective, None if int(objective.counts(labels).sum()) else NO_LABELS

    def _groups(
        self, units: Sequence[Unit], learning: Mapping[str, Criterion]
    ) -> Iterator[list[Unit]]:
        """Units that are learnt of together, as many as the budget of memory allows."""
        if not learning:
            return
        wanted = _wanted(learning)
        wiring = Wiring(self.model, units) if Statistic.INPUT_PRODUCTS in wanted else None
        group: list[Unit] = []
        spent = 0
        for unit in units:
            cost = 4 * unit.size * len(wanted & GRADIENTS) + _product_bytes(wiring, unit)
            if group and spent + cost > _BUDGET_BYTES:
                yield group
                group, spent = [], 0
            group.append(unit)
            spent += cost
        if group:
            yield group

    def _removal(
        self, unit: Unit, criterion: Criterion, moments: Moments | None
    ) -> Removal | Refusal:
        weight = find_weight(self.model, unit.members[0])
        try:
            return criterion.removal(Subject(self.model, unit, weight, self.seed, moments))
        except CannotRank as refusal:
            return Refusal(str(refusal))


def _wanted(learning: Mapping[str, Criterion]) -> frozenset[Statistic]:
    return frozenset[Statistic]().union(*(c.statistics for c in learning.values()))


def _product_bytes(wiring: Wiring | None, unit: Unit) -> int:
    """What X X^T of a unit takes, with as much again for its factors."""
    view = wiring.views.get(unit.id) if wiring is not None else None
    if view is None:
        return 0
    columns = view.columns(unit.shape)
    return 0 if columns > MOST_COLUMNS else 8 * view.groups * columns**2
