"""One streamed pass over samples of `train`: gradients and inputs of weights, added up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from worker.engine.batches import evaluating
from worker.engine.criteria.base import Statistic
from worker.engine.criteria.moments import MOST_COLUMNS, Moments, added
from worker.engine.criteria.sample_gradients import (
    Ways,
    add_known,
    find_ways,
    gradient_of_sample,
    losses,
)
from worker.engine.criteria.samples import batches_of, streamed, training_batch
from worker.engine.criteria.uses import Use
from worker.engine.criteria.watching import Watched, Watcher, Wiring
from worker.engine.pulse import Pulse

if TYPE_CHECKING:
    from worker.engine.formats.splits import Split
    from worker.engine.graph import CanonicalModel
    from worker.engine.objectives import Objective
    from worker.engine.units import Unit

GRADIENTS = frozenset([Statistic.MEAN_GRADIENT, Statistic.SQUARED_GRADIENT])
INPUTS = frozenset([Statistic.INPUT_NORMS, Statistic.INPUT_PRODUCTS])
ENOUGH_PLACES, PLACES_A_COLUMN = 2**15, 4
"""X X^T is that of so many places (pixels, tokens) or a few more, evenly taken, or of all."""
_PATCH_NUMBERS = 2**24


@dataclass(frozen=True)
class Data:
    """The samples to learn from: these rows of a split. `objective` None: no loss is asked for."""

    split: Split
    rows: np.ndarray
    objective: Objective | None


def observe(
    model: CanonicalModel,
    units: Sequence[Unit],
    wanted: Mapping[str, frozenset[Statistic]],
    data: Data,
    pulse: Pulse,
) -> dict[str, Moments]:
    """What the samples show of each unit's weight, by unit id.

    The network runs in evaluation mode, and only sums are kept. A pass counts as one unit of the
    work of `pulse`, half as much again where samples have to be taken one by one. The model is as
    before whenever this returns or raises. Raises Stopped.
    """
    return _Pass(model, units, wanted, data, pulse).run()


class _Pass:
    def __init__(
        self,
        model: CanonicalModel,
        units: Sequence[Unit],
        wanted: Mapping[str, frozenset[Statistic]],
        data: Data,
        pulse: Pulse,
    ) -> None:
        self.model, self.data, self.pulse = model, data, pulse
        self.units = {unit.id: unit for unit in units}
        self.moments = {name: Moments(wanted[name]) for name in self.units}
        self.wiring = Wiring(model, units)
        self.parameters = _parameters(model, units)
        self.size = training_batch(model, data.split)
        self.samples = streamed(model, data.rows, self.size)
        for name, moments in self.moments.items():
            moments.unseen = self.wiring.units[name].unseen

    def run(self) -> dict[str, Moments]:
        data, model = self.data, self.model
        mean, squared = (
            [n for n, m in self.moments.items() if statistic in m.wanted]
            for statistic in (Statistic.MEAN_GRADIENT, Statistic.SQUARED_GRADIENT)
        )
        told = frozenset(
            name
            for name, moments in self.moments.items()
            if moments.wanted & INPUTS and moments.unseen is None
        )
        learning = bool(mean or squared)
        ways = Ways()
        share = 1.0 / max(1, -(-len(data.rows) // self.size))
        with _in_evaluation(model, learning):
            if squared:
                ways = find_ways(self.model, self.wiring, squared, self.parameters, data)
            for inputs, labels in batches_of(model, data.split, data.rows, self.size):
                # Two runs, though one would do: what is known of inputs has the same bits whether
                # gradients are wanted beside it or not.
                if told:
                    with torch.no_grad():
                        self._watcher(Watched(told), len(labels)).run(*inputs)
                if learning:
                    watched = Watched(frozenset(), ways.recorded, ways.copied, ways.shared)
                    output = self._watcher(watched, len(labels)).run(*inputs)
                    loss = losses(data.objective, output, labels)
                    self._learn(loss, watched, mean, ways, len(labels))
                    del output, loss
                self.pulse.beat(share)
        for name in [*ways.general, *ways.unproven]:
            parameter = self.parameters[name]
            wide = torch.promote_types(parameter.dtype, torch.float32)
            self.moments[name].square_sum = torch.zeros_like(parameter.detach(), dtype=wide)
        if left := [*ways.general, *sorted(ways.disproved)]:
            self._one_by_one(left)
        for moments in self.moments.values():
            moments.samples = self.samples
        return self.moments

    def _watcher(self, watched: Watched, batch: int) -> Watcher:
        return Watcher(self.wiring, watched, batch, self._on_input, self.pulse.beat)

    def _on_input(self, name: str, use: Use, x: Tensor, batch: int) -> None:
        moments = self.moments[name]
        wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        squares = products = None
        if Statistic.INPUT_NORMS in moments.wanted:
            squares = use.squares(wide)
        if (
            Statistic.INPUT_PRODUCTS in moments.wanted
            and use.view.columns(use.shape) <= MOST_COLUMNS
        ):
            products = _products(use, wide, self.samples / batch)
        moments.add_inputs(use.view, squares, products)

    def _learn(
        self, loss: Tensor, watched: Watched, mean: Sequence[str], ways: Ways, batch: int
    ) -> None:
        """The gradients of a batch, added up. `loss`: the sum of the samples' losses."""
        records = [record for found in watched.records.values() for record in found]
        outputs = [output for record in records for output in record.outputs]
        copies = list(watched.copies)
        asked = [*(self.parameters[n] for n in mean), *watched.copies.values(), *outputs]
        if not asked or not loss.requires_grad:
            return
        found = list(torch.autograd.grad(loss, asked, allow_unused=True))
        for name in mean:
            gradient = found.pop(0)
            if gradient is not None:
                moments = self.moments[name]
                moments.gradient_sum = added(moments.gradient_sum, gradient)
        for name in copies:
            gradient = found.pop(0)
            if gradient is not None:
                moments, shape = self.moments[name], self.units[name].shape
                wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
                part = wide.square().sum(dim=0).reshape(shape)
                moments.square_sum = added(moments.square_sum, part)
        add_known(self.moments, watched, found, ways, batch, self.pulse)

    def _one_by_one(self, names: Sequence[str]) -> None:
        """A backward pass a sample, for weights that are used in no known way."""
        parameters = [self.parameters[name] for name in names]
        split, rows = self.data.split, self.data.rows
        with _in_evaluation(self.model, learning=True):
            for row in np.resize(rows, self.samples):
                gradients = gradient_of_sample(
                    self.model, split, self.data.objective, int(row), parameters
                )
                for name, gradient in zip(names, gradients, strict=True):
                    if gradient is not None:
                        total = self.moments[name].square_sum
                        assert total is not None
                        wide = gradient.to(total.dtype)
                        total.addcmul_(wide, wide)
                self.pulse.beat(0.5 / self.samples)


def _products(use: Use, x: Tensor, samples: float) -> Tensor:
    """X X^T over places, [groups, columns, columns], a few samples at a time.

    `samples`: how often so many places are seen in all. Of very many an even part is enough.
    """
    columns = use.view.columns(use.shape)
    total = x.new_zeros(use.view.groups, columns, columns)
    enough = max(ENOUGH_PLACES, PLACES_A_COLUMN * columns)
    # A convolution's patches are as many numbers as its input times its kernel's places.
    growth = max(1, columns * use.view.groups // max(1, x.shape[1] if x.dim() > 1 else 1))
    step = max(1, _PATCH_NUMBERS // max(1, growth * x[:1].numel()))
    for start in range(0, len(x), step):
        wide = use.columns(x[start : start + step])
        places = wide.shape[3]
        stride = max(1, int(places * len(x) * samples / enough))
        while math.gcd(stride, places) > 1:
            # So that every place of a sample has its turn.
            stride += 1
        for group in range(use.view.groups):
            flat = wide[:, group].movedim(1, 0).reshape(columns, -1)[:, ::stride]
            total[group].addmm_(flat, flat.t())
    return total


def _parameters(model: CanonicalModel, units: Sequence[Unit]) -> dict[str, nn.Parameter]:
    """The very parameter of each unit, of which gradients can be asked."""
    own = dict(model.module.named_parameters(remove_duplicate=False))
    return {unit.id: own[unit.members[0]] for unit in units}


@contextmanager
def _in_evaluation(model: CanonicalModel, learning: bool) -> Iterator[None]:
    """Evaluation mode in which all weights have gradients, or none.

    All of them, so that the network computes the same however few are asked for: a gradient that
    isn't asked for isn't worked out.
    """
    before = [(p, p.requires_grad) for p in model.module.parameters() if p.is_floating_point()]
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        try:
            for parameter, _ in before:
                parameter.requires_grad_(learning)
            yield
        finally:
            for parameter, learns in before:
                parameter.requires_grad_(learns)
