"""The engine, whole evaluations and the naive loop agree for every kind of task."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from app.domain.metrics import METRICS, Kind, primary
from tests.unit.engine import naive
from tests.unit.engine.architectures import BY_NAME
from tests.unit.engine.objectives.kinds import CASES, Case
from tests.unit.engine.objectives.kinds import naive as naive_figures
from tests.unit.engine.traced import plain_units
from worker.engine.evaluation import dense_predictions, evaluate
from worker.engine.learning_rate import range_test
from worker.engine.masks import MaskSet
from worker.engine.objectives import Evaluation, objective_for
from worker.engine.retraining import EpochResult, RetrainResult, RetrainSettings, retrain
from worker.engine.sensitivity import Cell, CellResult, SensitivityEngine
from worker.engine.train_state import TrainState

CLASSES = BY_NAME["perceptron"]
LEVELS = (0, 300_000, 700_000, 1_000_000)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_cell_equals_the_naive_loop(case: Case) -> None:
    model, split = case.model(), case.split(37)
    units = plain_units(model)
    engine = SensitivityEngine(model, split, units, batch_size=10)
    results: dict[Cell, CellResult] = {}
    engine.run(engine.cells(LEVELS), lambda result: results.__setitem__(result.cell, result))
    dense = naive_figures(case, model, split, 10)
    assert engine.objective.kind is case.kind
    assert engine.baseline().loss == dense.loss
    changed = 0
    for unit in units:
        if not unit.prunable:
            continue
        weight = model.module.get_parameter(unit.id)
        original = weight.detach().clone()
        for level in LEVELS:
            with torch.no_grad():
                weight.copy_(naive.smallest_removed(original, level / 1e6))
            expected = naive_figures(case, model, split, 10)
            with torch.no_grad():
                weight.copy_(original)
            found = results[Cell(unit.id, "magnitude", level)].evaluation
            assert (found.kind, found.samples) == (case.kind, 37)
            assert found.loss == expected.loss, (unit.id, level)
            if case.kind is Kind.REGRESSION:
                assert (found.correct, found.flips, found.lost, found.gained) == (None,) * 4
                continue
            assert found.judged == expected.answers
            assert found.correct == expected.correct()
            assert (found.flips, found.lost, found.gained) == expected.paired(dense)
            assert found.correct == dense.correct() - (found.lost or 0) + (found.gained or 0)
            changed += found.flips or 0
    assert changed > 0 or case.kind is Kind.REGRESSION


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_plan_of_one_unit_measures_what_its_cell_did(case: Case) -> None:
    model, split = case.model(), case.split(30)
    units = plain_units(model)
    engine = SensitivityEngine(model, split, units, batch_size=7)
    reference = dense_predictions(model, split, batch_size=7)
    assert reference.evaluation.as_json() == engine.baseline().as_json()
    results: list[CellResult] = []
    engine.run(engine.cells([600_000]), results.append)
    for result in results:
        masks = MaskSet.from_plan(model, units, {result.cell.unit: 0.6})
        alone = evaluate(model, split, masks=masks, reference=reference, batch_size=7)
        assert alone.as_json() == result.evaluation.as_json()
        told = alone.as_json()["metrics"]
        assert list(told) == [metric.name for metric in METRICS[case.kind]]
        for name, figure in told.items():
            if figure["low"] is not None:
                assert figure["low"] <= figure["value"] <= figure["high"], name
        assert told[primary(case.kind).name]["low"] is not None


def _retrain(
    case: Case, folder: Path, epochs: int, stop_after: int | None = None
) -> tuple[RetrainResult | None, list[EpochResult]]:
    model = case.model()
    units = plain_units(model)
    plan = {unit.id: 0.3 for unit in units if unit.prunable}
    seen: list[EpochResult] = []

    class Killed(Exception):
        pass

    def watch(epoch: EpochResult) -> None:
        seen.append(epoch)
        if epoch.epoch == stop_after:
            raise Killed

    state = folder / "state"
    try:
        result = retrain(
            model,
            MaskSet.from_plan(model, units, plan),
            case.split(240, seed=1),
            case.split(80, seed=2),
            RetrainSettings(epochs, batch_size=16, seed=3),
            save_to=state,
            resume_from=state,
            on_epoch=watch,
        )
    except Killed:
        return None, seen
    return result, seen


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_retraining_betters_the_primary_metric_and_goes_on_bit_for_bit(
    case: Case, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    result, seen = _retrain(case, whole, 6)
    assert result is not None
    metric = primary(case.kind)
    values = [epoch.tune_metrics[metric.name]["value"] for epoch in seen]
    assert all(value is not None for value in values)
    best = (max if metric.higher_is_better else min)(values)
    assert values[result.best_epoch] == best
    assert best > values[0] if metric.higher_is_better else best < 0.9 * values[0]
    assert (seen[0].tune_accuracy is None) == (case.kind is Kind.REGRESSION)
    assert _retrain(case, broken, 6, stop_after=3)[0] is None
    again, _ = _retrain(case, broken, 6)
    assert again is not None
    assert again.epochs == result.epochs
    assert again.learning_rate == result.learning_rate
    for key, tensor in result.best_state.items():
        assert torch.equal(again.best_state[key], tensor), key


def test_learning_rates_of_a_regression_follow_the_size_of_its_numbers() -> None:
    case = next(case for case in CASES if case.kind is Kind.REGRESSION)
    objective = objective_for(case.model(), case.split(200))
    labels = case.split(200).labels
    assert objective.steepness == pytest.approx(labels.astype(float).var())
    asked: list[float] = []

    def diverge_from(edge: float) -> float:
        """The loss falls as long as the rate is below the edge, and bursts beyond it."""
        asked.clear()

        def step(_: int, rate: float) -> float:
            asked.append(rate)
            return 1000.0 - 100 * rate / edge if rate < edge else math.inf

        return range_test(step, objective.steepness)

    for edge in (1e-7, 1e-3, 1.0):
        assert edge / 5 < diverge_from(edge) < edge
    assert asked[0] < 1e-4 / 1e4


def test_a_large_array_of_answers_lies_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[0]
    model, split = case.model(), case.split(30)
    expected = dense_predictions(model, split)
    monkeypatch.setattr("worker.engine.objectives.base._IN_MEMORY_BYTES", 10)
    found = dense_predictions(model, split)
    assert type(found.classes).__name__ == "memmap"
    assert found.classes.tolist() == expected.classes.tolist()
    assert found.evaluation == expected.evaluation == Evaluation(**_plain(found.evaluation))


def _plain(evaluation: Evaluation) -> dict[str, object]:
    names = ("samples", "correct", "loss", "flips", "lost", "gained", "answers", "kind")
    return {name: getattr(evaluation, name) for name in names}


def test_training_states_of_before_there_were_metrics_go_on(tmp_path: Path) -> None:
    units = plain_units(CLASSES.model())
    plan = {unit.id: 0.3 for unit in units if unit.prunable}

    def run(epochs: int) -> RetrainResult:
        return retrain(
            model := CLASSES.model(),
            MaskSet.from_plan(model, units, plan),
            CLASSES.split(60),
            CLASSES.split(30),
            RetrainSettings(epochs, batch_size=16, learning_rate=0.1),
            save_to=tmp_path / "state",
            resume_from=tmp_path / "state",
        )

    first = run(2)
    state = TrainState.load(tmp_path / "state")
    for epoch in state.progress["history"]:
        del epoch["tune"]
    state.save(tmp_path / "state")
    again = run(2)
    assert again.best_epoch == first.best_epoch
    for old, new in zip(first.epochs, again.epochs, strict=True):
        assert old.tune_metrics["accuracy"] == new.tune_metrics["accuracy"]
        assert {**old.tune, "metrics": 0} == {**new.tune, "metrics": 0}
