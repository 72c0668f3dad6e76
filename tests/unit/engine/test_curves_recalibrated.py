"""Curves of networks whose batch norms are re-estimated for each cell, against the naive way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app.domain.adaptive import drop_of
from app.domain.errors import InvalidInput
from app.domain.metrics import Kind
from tests.unit.engine.shown import (
    NEVER,
    WHOLE,
    Scene,
    assert_sums,
    engine_of,
    last,
    measured,
    pruned,
    shown,
    sums_of,
)
from tests.unit.engine.traced import randomise_norms, split_of
from worker.engine.recalibration import recalibrate
from worker.engine.search import GridSearch

LEVELS = (400_000, 900_000)


class Normed(nn.Module):
    """Weights with norms before, behind, and on neither side."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 10)
        self.norm = nn.BatchNorm1d(10)
        self.second = nn.Linear(10, 10)
        self.last = nn.BatchNorm1d(10)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Any) -> Any:
        hidden = torch.relu(self.norm(self.first(x)))
        return self.head(torch.relu(self.last(self.second(hidden))) + hidden)


def _data(samples: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = generator.standard_normal((samples, 6)).astype(np.float32)
    return x, (x[:, 0] > 0) + 2 * (x[:, 1] * x[:, 2] > 0)


SCENE = Scene("normed", Kind.SINGLE_LABEL, lambda: randomise_norms(Normed()), _data)
_inputs, _labels = _data(200, np.random.default_rng(9))
TRAIN = split_of([_inputs], _labels)
SEED = 3


def state(model: Any) -> dict[str, Any]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def whole_network(model: Any, split: Any):
    """As it is judged with its own new statistics, which are taken away again."""
    statistics = recalibrate(model, TRAIN, seed=SEED)
    try:
        return shown(SCENE, model, split)
    finally:
        statistics.restore()


@pytest.mark.parametrize("goal", [WHOLE, NEVER], ids=["whole", "looks"])
@pytest.mark.parametrize("samples", [33, 101])
def test_each_cell_has_its_own_statistics(samples: int, goal: Any) -> None:
    model, split = SCENE.model(), SCENE.split(samples)
    before = state(model)
    engine = engine_of(model, split, train=TRAIN, recalibrated=True, seed=SEED)
    told = measured(engine, LEVELS, goal)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    dense = whole_network(model, split)
    assert dense.hits is not None
    assert engine.baseline().correct == dense.hits.sum()
    assert engine.baseline().loss == pytest.approx(dense.losses.mean(), rel=1e-9)
    stored = shown(SCENE, model, split)
    assert engine.baseline().loss != pytest.approx(stored.losses.mean(), rel=1e-3)
    order, members = engine.stream.order, engine.stream.members
    for each in told:
        found = each.finding
        with pruned(model, found.cell.unit, found.cell.level / 1e6):
            own = whole_network(model, split)
        strata = np.zeros_like(members) if found.preview else members
        assert_sums(each.sums, sums_of(dense, own, order, strata, found.samples))
        if found.samples == samples:
            assert found.whole is not None
            assert own.hits is not None
            assert found.whole.correct == own.hits.sum()
            assert found.whole.loss == pytest.approx(own.losses.mean(), rel=1e-9)
            assert found.whole.kl == pytest.approx(own.divergence(dense).mean(), rel=1e-9)
            drop = drop_of(engine.strata, each.sums)
            assert drop is not None
            truth = (dense.hits.sum() - own.hits.sum()) / samples
            assert drop.value == pytest.approx(truth, abs=1e-12)
    assert len(last(told)) == len(engine.cells(LEVELS))


def test_company_changes_nothing() -> None:
    split = SCENE.split(90)

    def found(levels: tuple[int, ...], goal: Any) -> dict[Any, Any]:
        engine = engine_of(SCENE.model(), split, train=TRAIN, recalibrated=True, seed=SEED)
        return {c: each.facts for c, each in last(measured(engine, levels, goal)).items()}

    both = found(LEVELS, NEVER)
    assert both == found(LEVELS, WHOLE)
    for level in LEVELS:
        assert found((level,), WHOLE).items() <= both.items()


def test_what_is_seen_goes_on_in_a_fresh_engine() -> None:
    split = SCENE.split(200)
    options = {"train": TRAIN, "recalibrated": True, "seed": SEED}
    expected = last(measured(engine_of(SCENE.model(), split, **options), LEVELS, NEVER))
    first = engine_of(SCENE.model(), split, **options)
    runs = first.runs_for([(cell, NEVER) for cell in first.cells(LEVELS)])
    known: dict[Any, Any] = {}

    class Enough(Exception):
        pass

    def until(finding: Any) -> None:
        run = finding.run
        if run.seen == 128:
            said = {"samples": 128, "sums": run.sums.as_json(), "state": first.packed_state(run)}
            known[finding.cell] = said
        if len(known) == len(runs):
            raise Enough

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.engine.curves._TELL_SECONDS", -1.0)
        with pytest.raises(Enough):
            first.measure(GridSearch(runs), until)
    again = engine_of(SCENE.model(), split, **options)
    later = again.runs_for([(cell, WHOLE) for cell in again.cells(LEVELS)])
    for run in later:
        again.resume(run, known[run.cells[0]])
    found = last(measured(again, search=GridSearch(later)))
    assert {c: each.facts for c, each in found.items()} == {
        c: each.facts for c, each in expected.items()
    }


def test_without_a_train_split_it_says_so() -> None:
    engine = engine_of(SCENE.model(), SCENE.split(40), recalibrated=True)
    with pytest.raises(InvalidInput, match="no train split"):
        measured(engine, LEVELS, WHOLE)
