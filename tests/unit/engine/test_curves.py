"""How curves go about it: company, previews, goals, and outputs that are spoilt."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.domain.adaptive import Goal, drop_of
from app.domain.errors import InvalidInput
from app.domain.stream_order import PREVIEW, STRATA
from tests.unit.engine import naive
from tests.unit.engine.architectures import BY_NAME
from tests.unit.engine.shown import (
    CLASSES,
    NEVER,
    SCENES,
    WHOLE,
    Told,
    engine_of,
    facts,
    last,
    measured,
    runs_of,
    shown,
)
from tests.unit.engine.traced import split_of, trace
from worker.engine.search import GridSearch, KneeSearch, RefiningSearch
from worker.engine.sensitivity import Cell

LEVELS = (300_000, 700_000, 950_000)
SAMPLES = 300
LOOKS = (32, 64, 128, 256, 300)


@pytest.mark.parametrize("name", ["classes", "segmentation", "words"])
@pytest.mark.parametrize("goal", [NEVER, WHOLE, Goal(half_width=0.2)], ids=["l", "w", "a"])
def test_a_cell_has_the_same_figures_in_any_company(name: str, goal: Goal) -> None:
    scene = next(each for each in SCENES if each.name == name)
    split = scene.split(SAMPLES if name == "classes" else 130)
    everything = measured(engine_of(scene.model(), split), LEVELS, goal)
    again = measured(engine_of(scene.model(), split), LEVELS, goal)
    assert [(each.finding.cell, *each.facts) for each in again] == [
        (each.finding.cell, *each.facts) for each in everything
    ]
    cells = list(last(everything))
    for some in (cells[:1], cells[1::2], cells[::-3]):
        alone = measured(engine_of(scene.model(), split), goal=goal, cells=some)
        assert facts(alone) == {cell: facts(everything)[cell] for cell in some}
    unseen = measured(engine_of(scene.model(), split), LEVELS, goal, preview=False)
    assert facts(unseen) == facts(everything)
    assert not any(each.finding.preview for each in unseen)


@pytest.mark.parametrize("name", ["classes", "labels", "tagger", "regression"])
def test_rows_judged_one_by_one_say_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = next(each for each in SCENES if each.name == name)
    together = facts(measured(engine_of(scene.model(), scene.split(100)), LEVELS, NEVER))
    monkeypatch.setattr("worker.engine.passes._ROW_ELEMENTS", 1)
    assert facts(measured(engine_of(scene.model(), scene.split(100)), LEVELS, NEVER)) == together
    # And in passes of one cell each.
    monkeypatch.setattr("worker.engine.curves.pass_length", lambda *_: 1)
    assert facts(measured(engine_of(scene.model(), scene.split(100)), LEVELS, NEVER)) == together


def test_a_mixture_of_goals_leaves_each_its_own() -> None:
    split = CLASSES.split(SAMPLES)
    engine = engine_of(CLASSES.model(), split)
    cells = engine.cells(LEVELS)
    goals = [WHOLE, NEVER, Goal(half_width=0.2)]
    wanted = {cell: goals[at % 3] for at, cell in enumerate(cells)}
    found = facts(measured(engine, search=GridSearch(engine.runs_for(wanted.items()))))
    for goal in goals:
        whole = facts(measured(engine_of(CLASSES.model(), split), LEVELS, goal))
        assert all(found[cell] == whole[cell] for cell in cells if wanted[cell] is goal)


def test_cells_that_remove_as_much_share_a_run_and_are_both_told() -> None:
    engine = engine_of(CLASSES.model(), CLASSES.split(90))
    unit = "0.weight"
    cells = [Cell(unit, "magnitude", level) for level in (500_000, 500_001, 499_999, 900_000)]
    runs = engine.runs_for([(cell, WHOLE if cell.level == 499_999 else NEVER) for cell in cells])
    assert sorted(len(run.cells) for run in runs) == [1, 3]
    assert next(run for run in runs if len(run.cells) == 3).goal.whole
    told = measured(engine, search=GridSearch(runs))
    assert set(last(told)) == set(cells)
    assert len({last(told)[cell].facts for cell in cells[:3]}) == 1
    assert engine.evaluated_samples == 2 * 90


@pytest.mark.parametrize("name", ["classes", "regression", "tagger"])
def test_where_nothing_is_removed_it_is_the_dense_network(name: str) -> None:
    scene = next(each for each in SCENES if each.name == name)
    model, split = scene.model(), scene.split(90)
    engine = engine_of(model, split)
    told = measured(engine, (0, 1, 500_000), NEVER)
    dense = shown(scene, model, split)
    for cell, each in last(told).items():
        if cell.level > 1:
            continue
        whole = each.finding.whole
        assert whole == engine.baseline()
        assert whole is not None
        assert whole.loss == pytest.approx(dense.losses.sum() / dense.answers.sum(), rel=1e-12)
        drop = drop_of(engine.strata, each.sums)
        assert drop is not None
        assert (drop.value, drop.low, drop.high) == (0.0, 0.0, 0.0)
        assert sum(other.finding.cell == cell for other in told) == 1


def test_a_unit_of_zeros_is_refused_and_the_others_go_on() -> None:
    model, split = CLASSES.model(), CLASSES.split(90)
    with torch.no_grad():
        model.module.get_parameter("2.weight").zero_()
    engine = engine_of(model, split)
    reasons = engine.prepare(["magnitude"])
    assert list(reasons) == [("2.weight", "magnitude")]
    cells = [cell for cell in engine.cells(LEVELS) if (cell.unit, cell.criterion) not in reasons]
    assert {each.finding.cell for each in measured(engine, cells=cells)} == set(cells)
    with pytest.raises(InvalidInput, match=r"2\.weight"):
        measured(engine, LEVELS)


class Fragile(nn.Module):
    """Divides by what is left of its first layer: nothing, in the end."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 8, bias=False)
        self.second = nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.second(hidden / hidden.abs().amax(1, keepdim=True))


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("mode", ["grid", "knee", "refine", "sequence"])
def test_outputs_that_are_nan_are_settled_in_the_end(task: str, mode: str) -> None:
    model = trace(Fragile().double(), torch.float64)
    generator = np.random.default_rng(0)
    x = generator.standard_normal((150, 6)).astype(np.float32)
    y = generator.integers(0, 4, 150)
    if task == "regression":
        y = generator.standard_normal((150, 4)).astype(np.float32)
    split = split_of([x], y)
    split = type(split)(**(vars(split) | {"task": task}))
    goal = Goal(half_width=0.2, method="sequence" if mode == "sequence" else "looks")
    engine = engine_of(model, split, at_random=mode == "sequence")
    levels = (200_000, 600_000, 1_000_000)
    runs = runs_of(engine, levels, goal)
    search: Any = GridSearch(runs)
    if mode == "knee":
        search = KneeSearch(runs, lambda: engine.strata, 0.05)
    elif mode == "refine":
        make = lambda cell: engine.runs_for([(cell, goal)])[0]  # noqa: E731
        more = {(run.unit, run.criterion): 2 for run in runs}
        search = RefiningSearch(runs, lambda: engine.strata, 0.05, more, make)
    fractions: list[float] = []
    told = measured(engine, search=search, on_progress=fractions.append)
    found = last(told)[Cell("first.weight", "magnitude", 1_000_000)]
    if mode != "knee":
        assert all(each.finding.settled for each in last(told).values())
    assert found.finding.raw.loss is None
    if task == "classification":
        assert found.finding.raw.correct == 0
    elif mode != "knee":
        assert found.finding.samples == 150
        assert drop_of(engine.strata, found.sums) is None
    assert all(0 <= fraction <= 1 for fraction in fractions)
    assert fractions[-1] == 1.0


def test_a_preview_comes_before_the_dense_network_is_measured() -> None:
    model, split = CLASSES.model(), CLASSES.split(SAMPLES)
    engine = engine_of(model, split)
    samples = 0

    def count(_: Any, inputs: tuple[Tensor, ...]) -> None:
        nonlocal samples
        samples += len(inputs[0])

    model.module.get_submodule("0").register_forward_pre_hook(count)
    runs = runs_of(engine, LEVELS, NEVER)
    told: list[Told] = []
    seen: list[int] = []
    dense: list[int] = []

    def on_finding(finding: Any) -> None:
        told.append(Told.of(finding))
        seen.append(samples)

    engine.measure(GridSearch(runs), on_finding, on_dense=lambda: dense.append(len(told)))
    early = told[: len(runs)]
    assert dense == [len(runs)]
    assert all(each.finding.preview and each.finding.samples == PREVIEW for each in early)
    assert not any(each.finding.preview for each in told[len(runs) :])
    assert {each.finding.cell for each in early} == set(last(told))
    # Each weight was run on those few, and the whole network a few times at most.
    assert seen[len(runs) - 1] <= PREVIEW * (len(runs) + 10)
    assert all(each.sums.n.tolist() == [PREVIEW] + [0] * (STRATA - 1) for each in early)
    for run in runs:
        assert run.preview is None
        assert run.sums.n.tolist() == list(engine.strata.sizes)
    assert engine.evaluated_samples == SAMPLES * len(runs)
    assert engine.preview_dense is not None
    assert engine.preview_dense.samples == PREVIEW


def test_no_preview_where_there_is_little_to_wait_for() -> None:
    few = measured(engine_of(CLASSES.model(), CLASSES.split(2 * PREVIEW)), LEVELS[:1], NEVER)
    assert not any(each.finding.preview for each in few)
    engine = engine_of(CLASSES.model(), CLASSES.split(100))
    engine.baseline()
    assert not any(each.finding.preview for each in measured(engine, LEVELS[:1], NEVER))


def test_a_goal_that_is_reached_costs_no_more() -> None:
    split = CLASSES.split(2000)
    engine = engine_of(CLASSES.model(), split, batch_size=200)
    goal = Goal(half_width=0.06, relative=0.2)
    told = measured(engine, LEVELS, goal)
    exact = last(measured(engine_of(CLASSES.model(), split, batch_size=200), LEVELS, WHOLE))
    parts = 0
    for cell, each in last(told).items():
        drop = drop_of(engine.strata, each.sums, goal.confidence)
        assert drop is not None
        assert each.finding.settled
        assert drop.half_width <= max(0.06, 0.2 * abs(drop.value)) or each.finding.samples == 2000
        truth = drop_of(engine.strata, exact[cell].sums)
        assert truth is not None
        assert abs(truth.value - drop.value) < 0.12
        parts += each.finding.samples < 2000
    assert parts == len(last(told))
    for one, other in pairwise(told):
        if one.finding.cell == other.finding.cell:
            assert one.finding.samples < other.finding.samples
    ends = {each.finding.run.seen for each in told}
    assert ends <= set(engine.stream.looks)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_architecture_loses_what_the_naive_loop_loses(name: str) -> None:
    architecture = BY_NAME[name]
    model, split = architecture.model(), architecture.split(70)
    engine = engine_of(model, split, batch_size=25)
    found = last(measured(engine, LEVELS[:2], NEVER))
    _, _, dense = naive.predict(model, split, 70)
    assert engine.baseline().correct == sum(
        one == other for one, other in zip(dense, split.labels, strict=True)
    )
    for unit in {cell.unit for cell in found}:
        expected = naive.curve(model, split, unit, [level / 1e6 for level in LEVELS[:2]], 70)
        for level, figures in zip(LEVELS[:2], expected, strict=True):
            whole = found[Cell(unit, "magnitude", level)].finding.whole
            assert whole is not None
            assert (whole.correct, whole.flips, whole.lost, whole.gained) == (
                figures.correct,
                figures.flips,
                figures.lost,
                figures.gained,
            )
            assert whole.loss == pytest.approx(figures.loss, rel=1e-5)
