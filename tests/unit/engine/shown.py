"""What every sample of a split shows of a network, worked out by itself, and what curves then are.

The slow reference of `worker.engine.curves`, for every kind of task: the whole network on all
samples at once, everything else in numpy. Networks are of float64, where batches hardly matter.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app.domain.adaptive import Goal, Sums
from app.domain.metrics import Kind
from app.domain.stream_order import STRATA
from tests.unit.engine import naive
from tests.unit.engine.objectives.kinds import CASES, IGNORED
from tests.unit.engine.traced import TracedModel, plain_units, split_of, trace
from worker.engine import curves
from worker.engine.cell_run import CellRun
from worker.engine.curves import CurveEngine, Finding
from worker.engine.formats.splits import Split
from worker.engine.search import GridSearch, Search
from worker.engine.sensitivity import Cell


@dataclass(frozen=True)
class Scene:
    """A network of float64 and data that it is mostly right about."""

    name: str
    kind: Kind
    build: Callable[[], nn.Module]
    data: Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]
    task: str = "classification"
    tokens: bool = False

    def model(self, fixed_batch: int | None = None) -> TracedModel:
        torch.manual_seed(4)
        dtype = torch.int64 if self.tokens else torch.float64
        return trace(self.build().double(), dtype, fixed_batch=fixed_batch)

    def split(self, samples: int, seed: int = 0) -> Split:
        x, y = self.data(samples, np.random.default_rng(seed))
        split = replace(split_of([x], y), task=self.task)
        return split.cast([torch.int64]) if self.tokens else split


def _perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4))


def _classes(samples: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Nine in ten labels are what the network of `_perceptron` says."""
    x = generator.standard_normal((samples, 6)).astype(np.float32)
    torch.manual_seed(4)
    with torch.no_grad():
        said = _perceptron().double()(torch.from_numpy(x).double()).argmax(1).numpy()
    other = generator.integers(0, 4, samples)
    return x, np.where(generator.random(samples) < 0.87, said, other)


CLASSES = Scene("classes", Kind.SINGLE_LABEL, _perceptron, _classes)
SCENES = [CLASSES] + [
    Scene(case.name, case.kind, case.build, case.data, case.task, case.tokens) for case in CASES
]


@dataclass(frozen=True)
class Shown:
    """By sample, in the split's own order.

    `said`, `hits`, `judged` [samples, places] (None for regression); `right`, `losses`, `answers`
    [samples]; `logs` ln of probabilities [samples, places, classes].
    """

    said: np.ndarray | None
    hits: np.ndarray | None
    judged: np.ndarray | None
    losses: np.ndarray
    answers: np.ndarray
    logs: np.ndarray | None

    @property
    def right(self) -> np.ndarray:
        return np.zeros(len(self.losses)) if self.hits is None else self.hits.sum(1)

    def divergence(self, dense: Shown) -> np.ndarray:
        """KL(dense || this) of each sample, summed over its answers."""
        if self.logs is None or dense.logs is None:
            return np.zeros(len(self.losses))
        each = (np.exp(dense.logs) * (dense.logs - self.logs)).sum(2)
        assert self.judged is not None
        return (each * self.judged).sum(1)


def shown(scene: Scene, model: Any, split: Split, batch: int | None = None) -> Shown:
    """The network as it stands. `batch`: run so many at once, the last filled up with zeros."""
    model.module.eval()
    (x,), labels = split.cast([spec.dtype for spec in model.inputs]).batch(0, len(split))
    size = batch or len(split)
    filled = torch.cat([x, torch.zeros_like(x[:1]).expand(-len(x) % size, *x.shape[1:])])
    with torch.no_grad():
        parts = [model.module(part.clone()) for part in filled.split(size)]
    out = torch.cat(parts)[: len(split)].double().numpy()
    truth = labels.numpy()
    if scene.kind is Kind.REGRESSION:
        errors = ((out.reshape(len(out), -1) - truth.reshape(len(out), -1)) ** 2).sum(1)
        return Shown(None, None, None, errors, np.full(len(out), out[0].size), None)
    if scene.kind is Kind.MULTI_LABEL:
        z = np.log(out / (1 - out)) if scene.name.endswith("sigmoid") else out
        logs = np.stack([-np.logaddexp(0, z), -np.logaddexp(0, -z)], axis=2)
        return _answered(logs, z > 0, truth)
    if scene.name == "segmentation":
        out = np.moveaxis(out.reshape(*out.shape[:2], -1), 1, 2)
    out = out.reshape(len(out), -1, out.shape[-1])
    logs = out - np.log(np.exp(out - out.max(2, keepdims=True)).sum(2, keepdims=True))
    logs -= out.max(2, keepdims=True)
    return _answered(logs, out.argmax(2), truth.reshape(len(out), -1))


def _answered(logs: np.ndarray, said: np.ndarray, truth: np.ndarray) -> Shown:
    judged = truth != IGNORED
    at = np.where(judged, truth, 0).astype(np.int64)
    losses = -np.take_along_axis(logs, at[:, :, None], 2)[:, :, 0] * judged
    return Shown(
        said.astype(np.int64), (said == truth) & judged, judged, losses.sum(1), judged.sum(1), logs
    )


@contextmanager
def pruned(model: Any, unit: str, sparsity: float) -> Iterator[None]:
    """The weight without its smallest entries, within the block."""
    weight = naive.parameter(model, unit)
    original = weight.detach().clone()
    with torch.no_grad():
        weight.copy_(naive.smallest_removed(original, sparsity))
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(original)


def sums_of(dense: Shown, cell: Shown, order: np.ndarray, members: np.ndarray, n: int) -> Sums:
    """What the first n samples of a stream give, sample by sample. `members` in its order."""
    scale = len(order) / dense.answers.sum()
    apart = cell.divergence(dense)
    sums = Sums()
    for at in range(n):
        sample, stratum = order[at], members[at]
        values = {
            "d": (dense.right[sample] - cell.right[sample]) * scale,
            "l": (cell.losses[sample] - dense.losses[sample]) * scale,
            "k": apart[sample] * scale,
        }
        sums.n[stratum] += 1
        for name, value in values.items():
            getattr(sums, name)[stratum] += value
            getattr(sums, name + "2")[stratum] += value * value
        if dense.hits is not None and cell.hits is not None:
            sums.lost += int((dense.hits[sample] & ~cell.hits[sample]).sum())
            sums.gained += int((cell.hits[sample] & ~dense.hits[sample]).sum())
    return sums


def assert_sums(found: Sums, expected: Sums) -> None:
    for name in Sums.PARTS:
        assert getattr(found, name).shape == (STRATA,)
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-9, abs=1e-12)
    assert (found.lost, found.gained) == (expected.lost, expected.gained)


@dataclass(frozen=True)
class Told:
    """A finding as it was when it was told."""

    finding: Finding
    sums: Sums
    hits: bytes | None

    @classmethod
    def of(cls, finding: Finding) -> Told:
        hits = finding.run.hits
        return cls(finding, copy.deepcopy(finding.run.sums), None if hits is None else hits.packed)

    @property
    def facts(self) -> tuple[Any, ...]:
        """All of it, to the last bit."""
        found, sums = self.finding, self.sums
        parts = [getattr(sums, name).tobytes() for name in Sums.PARTS]
        raw = repr(found.raw.as_json())
        return (found.samples, found.settled, raw, *parts, sums.lost, sums.gained, self.hits)


def engine_of(model: Any, split: Split, batch_size: int = 40, **options: Any) -> CurveEngine:
    return CurveEngine(model, split, plain_units(model), batch_size=batch_size, **options)


WHOLE = Goal(whole=True)
"""All samples."""
NEVER = Goal(half_width=1e-9, relative=0.0)
"""All samples too, but from look to look."""


def measured(
    engine: CurveEngine,
    levels: Sequence[int] = (),
    goal: Goal = WHOLE,
    *,
    search: Search | None = None,
    cells: Sequence[Cell] = (),
    **options: Any,
) -> list[Told]:
    """All that is told, at every look."""
    if search is None:
        search = GridSearch(runs_of(engine, levels, goal, cells))
    told: list[Told] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "_TELL_SECONDS", -1.0)
        engine.measure(search, lambda finding: told.append(Told.of(finding)), **options)
    return told


def runs_of(
    engine: CurveEngine, levels: Sequence[int], goal: Goal, cells: Sequence[Cell] = ()
) -> list[CellRun]:
    return engine.runs_for([(cell, goal) for cell in cells or engine.cells(levels)])


def last(told: Sequence[Told]) -> dict[Cell, Told]:
    """What was told last of each cell."""
    return {each.finding.cell: each for each in told}


def facts(told: Sequence[Told]) -> dict[Cell, tuple[Any, ...]]:
    """What was told last of each cell, to the last bit."""
    return {cell: each.facts for cell, each in last(told).items()}
