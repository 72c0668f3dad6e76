"""Curves that are stopped: the network is what it was, and they go on as if they never were."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from app.domain.adaptive import Goal
from app.domain.errors import InvalidInput, Stopped
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
from worker.engine.cell_run import CellRun
from worker.engine.curves import CurveEngine
from worker.engine.search import GridSearch
from worker.engine.sensitivity import Cell
from worker.inside.analyse import resumed

LEVELS = (300_000, 700_000, 950_000)
SAMPLES = 300
LOOKS = (32, 64, 128, 256, 300)


@pytest.fixture(autouse=True)
def _asked_at_every_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine.pulse._STOP_SECONDS", 0.0)
    monkeypatch.setattr("worker.engine.pulse._PROGRESS_SECONDS", 0.0)


def state(model: Any) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(model: Any, before: dict[str, Tensor]) -> bool:
    now = model.state_dict()
    return all(torch.equal(now[key], value) for key, value in before.items())


def stopped_at(
    engine: CurveEngine, runs: list[CellRun], when: Callable[[Told], bool]
) -> list[Told]:
    """Measure until a finding is such; what was told by then."""
    told: list[Told] = []
    over = False

    def on_finding(finding: Any) -> None:
        nonlocal over
        told.append(Told.of(finding))
        over = over or when(told[-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.engine.curves._TELL_SECONDS", -1.0)
        with pytest.raises(Stopped):
            engine.measure(GridSearch(runs), on_finding, lambda: over)
    return told


def kept(engine: CurveEngine, runs: list[CellRun]) -> dict[tuple[str, int], dict[str, Any]]:
    said = {
        (run.unit, run.removed): {
            "samples": run.seen,
            "sums": run.sums.as_json(),
            "state": engine.packed_state(run),
        }
        for run in runs
        if run.seen
    }
    return {key: json.loads(json.dumps(each)) for key, each in said.items()}


@pytest.mark.parametrize("look", [*LOOKS[:-1], "middle"])
@pytest.mark.parametrize("name", ["classes", "tagger", "labels", "regression"])
@pytest.mark.parametrize("goal", [NEVER, WHOLE], ids=["looks", "whole"])
def test_what_was_stopped_goes_on_as_if_it_never_was(name: str, look: Any, goal: Goal) -> None:
    scene = next(each for each in SCENES if each.name == name)
    split = scene.split(SAMPLES)
    never = measured(engine_of(scene.model(), split), LEVELS, goal)
    first = engine_of(scene.model(), split)
    runs = runs_of(first, LEVELS, NEVER)
    calls = 0

    def enough(told: Told) -> bool:
        nonlocal calls
        calls += told.finding.samples == 64
        return calls == 2 if look == "middle" else told.finding.samples == look

    stopped_at(first, runs, enough)
    assert {run.seen for run in runs} != {SAMPLES}
    known = kept(first, runs)
    again = engine_of(scene.model(), split)
    later = runs_of(again, LEVELS, goal)
    for run in later:
        said = known.get((run.unit, run.removed))
        # A preview's sums are of no strata yet: there is nothing to go on from.
        assert (said is None or said["state"] is None) == (look == 32)
        if said is not None and said["state"] is not None:
            again.resume(run, said)
    assert facts(measured(again, search=GridSearch(later))) == facts(never)


def test_states_of_another_stream_or_task_are_refused() -> None:
    split = CLASSES.split(SAMPLES)
    first = engine_of(CLASSES.model(), split)
    runs = runs_of(first, LEVELS[:1], NEVER)
    stopped_at(first, runs, lambda told: told.finding.samples == 64)
    known = kept(first, runs)

    def refused(engine: CurveEngine, **other: Any) -> None:
        (run, *_) = runs_of(engine, LEVELS[:1], NEVER)
        before = dict(vars(run))
        said = known[runs[0].unit, runs[0].removed] | other
        with pytest.raises(InvalidInput):
            engine.resume(run, said)
        assert vars(run) == before

    refused(engine_of(CLASSES.model(), split, seed=1))
    refused(engine_of(CLASSES.model(), CLASSES.split(SAMPLES, seed=1)))
    sums = known[runs[0].unit, runs[0].removed]["sums"]
    refused(engine_of(CLASSES.model(), split), sums=sums | {"n": sums["n"][::-1]})
    run = runs[0]
    assert run.state is not None
    good = dict(run.state)
    for name, wrong in [
        ("counts", good["counts"][:-1]),
        ("counts", good["counts"].astype(float)),
        ("loss", good["loss"][None]),
    ]:
        run.state = good | {name: wrong}
        refused(engine_of(CLASSES.model(), split), state=first.packed_state(run))
    for other in (good | {"more": np.zeros(1)}, {k: v for k, v in good.items() if k != "said"}):
        run.state = other
        refused(engine_of(CLASSES.model(), split), state=first.packed_state(run))


def norms() -> Any:
    return BY_NAME["resnet"].model()


@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_what_it_was(training: bool) -> None:
    model, split = norms(), BY_NAME["resnet"].split(100)
    model.train_mode(training)
    before = state(model)
    modes = [part.training for part in model.module.modules()]
    threads = torch.get_num_threads()
    engine = engine_of(model, split, threads=1)
    measured(engine, LEVELS[:2], Goal(half_width=0.2))
    assert same(model, before)
    assert [part.training for part in model.module.modules()] == modes
    over = iter([False] * 9 + [True] * 10**6)
    fresh = engine_of(model, split)
    with pytest.raises(Stopped):
        measured(fresh, LEVELS, WHOLE, should_stop=lambda: next(over))
    assert same(model, before)

    def burst(_: Any) -> None:
        raise KeyError("whoever listens")

    with pytest.raises(KeyError):
        fresh.measure(GridSearch(runs_of(fresh, LEVELS[:1], WHOLE)), burst)
    assert same(model, before)
    assert [part.training for part in model.module.modules()] == modes
    assert torch.get_num_threads() == threads
    assert not torch.is_inference_mode_enabled()


def test_a_stop_at_any_moment_is_one_to_go_on_from() -> None:
    split = CLASSES.split(120)
    model = CLASSES.model()
    before = state(model)
    expected = facts(measured(engine_of(CLASSES.model(), split, batch_size=16), LEVELS[:2], NEVER))
    engine = engine_of(model, split, batch_size=16)
    runs = runs_of(engine, LEVELS[:2], NEVER)
    told: list[Told] = []
    asked = 0
    for patience in range(3, 400, 7):
        left = iter([False] * patience + [True] * 10**6)
        try:
            told += measured(engine, search=GridSearch(runs), should_stop=left.__next__)
            break
        except Stopped:
            asked += 1
            assert same(model, before)
    assert asked > 5
    found = {
        cell: (run.seen, run.settled, run.hits.packed, engine.evaluation(run))
        for run in runs
        if run.hits is not None
        for cell in run.cells
    }
    assert found.keys() == expected.keys()
    for cell, (seen, settled, hits, evaluation) in found.items():
        assert (seen, settled, repr(evaluation.as_json())) == expected[cell][:3]
        assert hits == expected[cell][-1]


def test_a_dense_run_that_was_stopped_leaves_nothing_behind() -> None:
    split = CLASSES.split(SAMPLES)
    expected = engine_of(CLASSES.model(), split, batch_size=16).stream
    engine = engine_of(CLASSES.model(), split, batch_size=16)
    asked = iter([False] * 25 + [True] + [False] * 10**6)
    with pytest.raises(Stopped):
        engine.baseline(lambda: next(asked))
    assert (engine.stream.order == expected.order).all()
    assert engine.dense_hits is not None
    dense = shown(CLASSES, engine._model, split)
    assert dense.hits is not None
    assert engine.dense_hits.packed == np.packbits(dense.hits[expected.order, 0]).tobytes()


def test_a_recipe_goes_on_from_what_fits_and_tells_every_cell() -> None:
    split = CLASSES.split(SAMPLES)
    first = engine_of(CLASSES.model(), split)
    unit, levels = "0.weight", (500_000, 500_001, 900_000)
    cells = [Cell(unit, "magnitude", level) for level in levels]
    runs = runs_of(first, (), NEVER, cells)
    stopped_at(first, runs, lambda told: told.finding.samples == 64)
    kept_of = kept(first, runs)

    def known(*some: int, **other: Any) -> list[dict[str, Any]]:
        return [
            {"unit": unit, "criterion": "magnitude", "level": level, **said, **other}
            for run in runs
            for cell in run.cells
            if (level := cell.level) in some
            for said in [kept_of[run.unit, run.removed]]
        ]

    def go_on(said: list[dict[str, Any]], goal: Goal) -> tuple[list[CellRun], set[Any]]:
        engine = engine_of(CLASSES.model(), split)
        later = runs_of(engine, (), goal, cells)
        quiet = resumed(engine, later, said)
        told = last(measured(engine, search=GridSearch(later)))
        # Each cell was known to be done, or is told.
        done = {cell for run in later for cell in run.cells if run.seen and run.settled}
        assert set(told) | {cell for cell in cells if cell.level in some_of(quiet)} == done
        assert done == set(cells)
        return later, quiet

    def some_of(quiet: set[Any]) -> set[int]:
        return {level for *_, level in quiet}

    assert go_on(known(*levels), NEVER)[1] == set()
    broken = known(*levels, state="bm90aGluZw==")
    assert go_on(broken, NEVER)[1] == set()
    # Known without a state: left out where all cells of a run are, and nowhere else.
    said = {"sums": None, "state": None, "samples": SAMPLES, "drop": 0.25}
    assert some_of(go_on(known(*levels, **said), NEVER)[1]) == set(levels)
    assert some_of(go_on(known(500_000, 900_000, **said), NEVER)[1]) == {900_000}
