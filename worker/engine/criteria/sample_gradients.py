"""The squared gradient of every sample, whichever way there is to it.

Three ways, fastest first. Known: from what goes into a weight and the gradient of what comes out,
for a whole batch. Copied: every sample gets its own copy of a weight that is added or multiplied
on. General: one backward pass a sample. The first two are tried on a few samples and held against
the third, so that a network that mixes samples, or hides its batch, is never taken for another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from worker.engine.criteria.moments import Moments, added
from worker.engine.criteria.samples import batches_of
from worker.engine.criteria.uses import BATCH_AXES, chunk_samples
from worker.engine.criteria.watching import Record, Watched, Watcher, Wiring
from worker.engine.pulse import Pulse

if TYPE_CHECKING:
    from worker.engine.criteria.observing import Data
    from worker.engine.formats.splits import Split
    from worker.engine.graph import CanonicalModel
    from worker.engine.objectives import Objective

_TRIAL = 8
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
_COARSE = 5e-2


@dataclass(frozen=True)
class Ways:
    """Which way leads to which units' gradients. `axis`: where the batch is in a unit's records.

    `unproven`: units of known use whose gradients were all zero on the first samples, as behind
    dead rectifiers. As long as nothing comes back, their gradients are zero whatever the axis;
    those to which something does are `disproved`, and go the general way.
    """

    axis: Mapping[str, int] = field(default_factory=dict)
    copied: frozenset[str] = frozenset()
    unproven: frozenset[str] = frozenset()
    general: tuple[str, ...] = ()
    shared: set[str] = field(default_factory=set)
    disproved: set[str] = field(default_factory=set)

    @property
    def recorded(self) -> frozenset[str]:
        return frozenset(self.axis) | self.unproven


def losses(objective: Objective | None, output: Any, labels: Tensor) -> Tensor:
    """The sum over samples of each one's own loss: the mean over its answers."""
    assert objective is not None
    outputs = objective.outputs(output, labels)
    each = [objective.loss(outputs[at : at + 1], labels[at : at + 1]) for at in range(len(labels))]
    return torch.stack(each).sum()


def gradient_of_sample(
    model: CanonicalModel,
    split: Split,
    objective: Objective | None,
    row: int,
    parameters: Sequence[nn.Parameter],
) -> list[Tensor | None]:
    """The gradient of one sample's loss by plain autograd, the sample alone in its batch.

    In a network with a fixed batch the sample fills all of it, and the first answer counts.
    """
    size = model.fixed_batch or 1
    rows = np.full(size, row)
    inputs, labels = next(batches_of(model, split, rows, size))
    loss = losses(objective, model.module(*inputs), labels[:1])
    if not loss.requires_grad:
        return [None] * len(parameters)
    return list(torch.autograd.grad(loss, list(parameters), allow_unused=True))


def find_ways(
    model: CanonicalModel,
    wiring: Wiring,
    names: Sequence[str],
    parameters: Mapping[str, nn.Parameter],
    data: Data,
) -> Ways:
    """The fastest right way for each unit, found out on the first few samples."""
    known = frozenset(name for name in names if wiring.units[name].known)
    size = model.fixed_batch or min(_TRIAL, len(data.rows))
    # From all over the split: neighbours may be of one class, and alike.
    rows = data.rows[np.arange(size) * len(data.rows) // size]
    truth = dict(zip(names, _truth(model, data, rows, [parameters[n] for n in names]), strict=True))
    watched = Watched(recorded=known, trial=True)
    found = _tried(model, wiring, watched, data, rows)
    for name in names:
        if name not in known and wiring.units[name].copyable:
            # Each by itself, so that none depends on who else is there.
            found |= _tried(model, wiring, Watched(copied=frozenset([name])), data, rows)
    right = {
        name: axis
        for name, tries in found.items()
        for axis, gradients in reversed(tries)
        if _agree(gradients, truth[name], parameters[name].dtype)
    }
    blank = {n for n in known & found.keys() if n not in right and not any(map(_any, truth[n]))}
    return Ways(
        axis={name: axis for name, axis in right.items() if name in known},
        copied=frozenset(right) - known,
        unproven=frozenset(blank),
        general=tuple(name for name in names if name not in right and name not in blank),
        shared=watched.shared,
    )


def _any(values: Tensor) -> bool:
    return bool(values.any())


def _truth(
    model: CanonicalModel, data: Data, rows: np.ndarray, parameters: Sequence[nn.Parameter]
) -> list[list[Tensor]]:
    """Each unit's gradients of the first samples, one by one."""
    each = [
        gradient_of_sample(model, data.split, data.objective, int(row), parameters)
        for row in rows[:_TRIAL]
    ]
    return [
        [torch.zeros_like(parameter) if g[at] is None else g[at] for g in each]
        for at, parameter in enumerate(parameters)
    ]


def _tried(
    model: CanonicalModel, wiring: Wiring, watched: Watched, data: Data, rows: np.ndarray
) -> dict[str, list[tuple[int, Tensor]]]:
    """Each sample's gradient of each unit, for every axis on which its batch may be.

    Nothing where the network doesn't run that way.
    """
    inputs, labels = next(batches_of(model, data.split, rows, len(rows)))
    try:
        output = Watcher(wiring, watched, len(rows)).run(*inputs)
        loss = losses(data.objective, output, labels)
        asked = [
            *watched.copies.values(),
            *(o for rs in watched.records.values() for r in rs for o in r.outputs),
        ]
        if not asked or not loss.requires_grad:
            return {}
        gradients = list(torch.autograd.grad(loss, asked, allow_unused=True))
    except (RuntimeError, ValueError, IndexError, TypeError):
        return {}
    found: dict[str, list[tuple[int, Tensor]]] = {}
    for name, copy in watched.copies.items():
        gradient = gradients.pop(0)
        found[name] = [(0, torch.zeros_like(copy) if gradient is None else gradient)]
    for name, records in watched.records.items():
        parts = [_taken(gradients, record) for record in records]
        for axis in BATCH_AXES:
            try:
                pairs = [r.pair(p, len(rows), axis) for r, p in zip(records, parts, strict=True)]
                made = _gradients(records, pairs, slice(0, _TRIAL))
            except (RuntimeError, ValueError, IndexError):
                continue
            found.setdefault(name, []).append((axis, made))
    return found


def _agree(found: Tensor, truth: Sequence[Tensor], dtype: torch.dtype) -> bool:
    """Are these the true gradients, up to rounding? Not where all are zero, which proves nothing.

    Gradients that aren't numbers agree with nothing.
    """
    true = torch.stack(list(truth)).flatten(1).double()
    own = found[: len(true)].flatten(1).double()
    scale = float(true.norm(dim=1).max())
    if own.shape != true.shape or not scale > 0:
        return False
    return bool((own - true).norm(dim=1).max() <= _TOLERANCE.get(dtype, _COARSE) * scale)


def add_known(
    moments: Mapping[str, Moments],
    watched: Watched,
    gradients: list[Tensor | None],
    ways: Ways,
    batch: int,
    pulse: Pulse,
) -> None:
    """Add the squared gradients of a batch. `gradients`: those of all recorded outputs in order."""
    for name, records in watched.records.items():
        parts = [_taken(gradients, record) for record in records]
        if name in ways.unproven:
            if any(g is not None and bool(g.any()) for part in parts for g in part):
                ways.disproved.add(name)
            continue
        axis = ways.axis[name]
        pairs = [r.pair(p, batch, axis) for r, p in zip(records, parts, strict=True)]
        own = moments[name]
        use = records[0].use
        summed = use.square_sums(*_wide(pairs[0])) if len(records) == 1 else None
        if summed is not None:
            own.square_sum = added(own.square_sum, use.view.weight(summed, use.shape))
            continue
        step = chunk_samples(use.shape)
        for start in range(0, batch, step):
            made = _gradients(records, pairs, slice(start, start + step))
            own.square_sum = added(own.square_sum, made.square_().sum(dim=0))
            pulse.beat()


def _taken(gradients: list[Tensor | None], record: Record) -> list[Tensor | None]:
    """The gradients of a record's outputs, taken off the front."""
    own = gradients[: len(record.outputs)]
    del gradients[: len(record.outputs)]
    return own


def _gradients(
    records: Sequence[Record], pairs: Sequence[tuple[Tensor, Tensor]], own: slice
) -> Tensor:
    """Each of these samples' gradient of one weight, [samples, *shape]: the sum over its uses."""
    total: Tensor | None = None
    for record, (x, dy) in zip(records, pairs, strict=True):
        use = record.use
        made = use.view.weight(use.gradients(*_wide((x[own], dy[own]))), use.shape)
        total = made if total is None else total + made
    assert total is not None
    return total


def _wide(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """In at least float32; what goes in may be whole numbers."""
    x, dy = pair
    wide = torch.promote_types(dy.dtype, torch.float32)
    return (x.to(wide) if x.is_floating_point() else x), dy.to(wide)
