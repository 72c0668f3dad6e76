"""The engine against the naive loop: equal to the last bit, whatever the network's shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import InputMismatch, InvalidInput
from app.domain.levels import to_level
from tests.unit.engine import naive
from tests.unit.engine.architectures import ARCHITECTURES, BY_NAME, Architecture
from tests.unit.engine.traced import make_split, plain_units
from worker.engine.evaluation import Evaluation, evaluate
from worker.engine.masks import MaskSet
from worker.engine.sensitivity import Cell, CellResult, SensitivityEngine

SPARSITIES = (0.0, 0.3, 0.5, 0.85, 1.0)
LEVELS = [to_level(s) for s in SPARSITIES]


def measure(engine: SensitivityEngine, cells: Sequence[Cell]) -> dict[Cell, CellResult]:
    results: dict[Cell, CellResult] = {}

    def take(result: CellResult) -> None:
        assert result.cell not in results, "reported twice"
        results[result.cell] = result

    engine.run(cells, take)
    return results


def as_figures(evaluation: Evaluation) -> naive.Figures:
    return naive.Figures(
        evaluation.samples,
        evaluation.correct,
        evaluation.loss,
        evaluation.flips or 0,
        evaluation.lost or 0,
        evaluation.gained or 0,
    )


@pytest.mark.parametrize("batch_size", [16, 50])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.name)
def test_every_cell_equals_the_naive_loop_to_the_last_bit(
    architecture: Architecture, batch_size: int
) -> None:
    model, split = architecture.model(), architecture.split(50)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    units = plain_units(model)
    engine = SensitivityEngine(model, split, units, batch_size=batch_size)
    results = measure(engine, engine.cells(LEVELS))
    prunable = [unit for unit in units if unit.prunable]
    assert len(results) == len(prunable) * len(LEVELS)
    for unit in prunable:
        curve = naive.curve(model, split, unit.id, SPARSITIES, batch_size)
        for level, sparsity, expected in zip(LEVELS, SPARSITIES, curve, strict=True):
            result = results[Cell(unit.id, "magnitude", level)]
            assert as_figures(result.evaluation) == expected, (unit.id, sparsity)
            assert result.removed == round(sparsity * unit.size)
            assert result.size == unit.size
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.name)
def test_a_plan_of_one_unit_measures_what_its_cell_did(architecture: Architecture) -> None:
    model, split = architecture.model(), architecture.split(40)
    units = plain_units(model)
    engine = SensitivityEngine(model, split, units)
    dense = engine.predictions()
    for cell, result in measure(engine, engine.cells([to_level(0.6)])).items():
        masks = MaskSet.from_plan(model, units, {cell.unit: 0.6})
        assert evaluate(model, split, masks=masks, reference=dense) == result.evaluation


def test_a_network_of_one_batch_size_gets_full_batches_and_counts_no_filling() -> None:
    architecture = BY_NAME["plain-cnn"]
    model, split = architecture.model(fixed_batch=8), architecture.split(29)
    seen: set[int] = set()
    model.module.register_forward_pre_hook(lambda _, inputs: seen.add(len(inputs[0])))
    first = model.module.get_submodule("0")
    first.register_forward_pre_hook(lambda _, inputs: seen.add(len(inputs[0])))
    engine = SensitivityEngine(model, split, plain_units(model), batch_size=5)
    results = measure(engine, engine.cells(LEVELS))
    assert seen == {8}
    assert engine.baseline().samples == 29
    for unit in ("0.weight", "9.weight"):
        curve = naive.curve(model, split, unit, SPARSITIES, 8)
        measured = [
            as_figures(results[Cell(unit, "magnitude", level)].evaluation) for level in LEVELS
        ]
        assert measured == curve


TABLE_MODEL = BY_NAME["resnet"].model()
TABLE_SPLIT = BY_NAME["resnet"].split(24)
TABLE_UNITS = plain_units(TABLE_MODEL)
PRUNABLE = [unit.id for unit in TABLE_UNITS if unit.prunable]


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_division_of_any_grid_gives_the_identical_table(data: st.DataObject) -> None:
    levels = data.draw(
        st.lists(
            st.sampled_from([0, 1, 250_000, 333_333, 500_000, 999_999, 1_000_000]),
            min_size=1,
            max_size=4,
            unique=True,
        )
    )
    units = data.draw(st.lists(st.sampled_from(PRUNABLE), min_size=1, max_size=4, unique=True))
    cells = [
        Cell(unit, criterion, level)
        for unit in units
        for criterion in ("magnitude", "random")
        for level in levels
    ]
    cells = data.draw(st.permutations(cells))
    cut = data.draw(st.integers(0, len(cells)))
    before = {key: value.clone() for key, value in TABLE_MODEL.state_dict().items()}

    def engine() -> SensitivityEngine:
        return SensitivityEngine(TABLE_MODEL, TABLE_SPLIT, TABLE_UNITS, seed=5, batch_size=10)

    whole = measure(engine(), cells)
    parts = measure(engine(), cells[:cut]) | measure(engine(), cells[cut:])
    assert whole == parts
    after = TABLE_MODEL.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_the_random_criterion_removes_what_the_seed_says() -> None:
    def table(seed: int) -> dict[Cell, CellResult]:
        engine = SensitivityEngine(
            TABLE_MODEL, TABLE_SPLIT, TABLE_UNITS, criterion="random", seed=seed
        )
        return measure(engine, engine.cells([500_000]))

    assert table(1) == table(1)
    assert table(1) != table(2)
    masks = MaskSet.from_plan(TABLE_MODEL, TABLE_UNITS, {PRUNABLE[0]: 0.5}, "random", seed=1)
    measured = evaluate(TABLE_MODEL, TABLE_SPLIT, masks=masks)
    result = table(1)[Cell(PRUNABLE[0], "random", 500_000)].evaluation
    assert (result.correct, result.loss) == (measured.correct, measured.loss)


def test_outputs_that_are_not_numbers_are_wrong_and_have_no_loss() -> None:
    architecture = BY_NAME["perceptron"]
    model, split = architecture.model(), architecture.split(30)
    with torch.no_grad():
        model.module.get_parameter("0.weight")[0, 0] = math.inf
        model.module.get_parameter("3.weight")[:, 0] = 0.0
        model.module.get_parameter("3.weight")[2, 0] = math.nan
    engine = SensitivityEngine(model, split, plain_units(model), batch_size=16)
    assert engine.baseline() == Evaluation(30, 0, None, 0, 0, 0)
    results = measure(engine, engine.cells(LEVELS))
    last = results[Cell("3.weight", "magnitude", 1_000_000)].evaluation
    assert last.loss is not None
    assert last.flips == 30
    assert last.lost == 0
    assert last.gained == last.correct
    for unit in ("0.weight", "3.weight"):
        curve = naive.curve(model, split, unit, SPARSITIES, 16)
        assert [
            as_figures(results[Cell(unit, "magnitude", level)].evaluation) for level in LEVELS
        ] == curve


def test_a_weight_that_nothing_uses_changes_nothing() -> None:
    model, split = BY_NAME["perceptron"].model(), BY_NAME["perceptron"].split(20)
    model.module.register_parameter("unused", torch.nn.Parameter(torch.randn(4, 4)))
    engine = SensitivityEngine(model, split, plain_units(model))
    results = measure(engine, [Cell("unused", "magnitude", 500_000)])
    assert [r.evaluation for r in results.values()] == [engine.baseline()]


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (Cell("nobody.weight", "magnitude", 1), "nobody.weight"),
        (Cell("0.bias", "magnitude", 1), "one dimension"),
        (Cell("0.weight", "guessing", 1), "magnitude"),
        (Cell("0.weight", "magnitude", 1_000_001), "outside 0 to 1"),
    ],
)
def test_a_cell_that_makes_no_sense_is_refused_in_words(cell: Cell, words: str) -> None:
    model, split = BY_NAME["perceptron"].model(), BY_NAME["perceptron"].split(10)
    engine = SensitivityEngine(model, split, plain_units(model))
    with pytest.raises(InvalidInput, match=words):
        engine.run([cell], lambda _: pytest.fail("nothing to report"))


def test_an_empty_split_is_refused() -> None:
    model = BY_NAME["perceptron"].model()
    with pytest.raises(InvalidInput, match="no samples"):
        SensitivityEngine(model, make_split([(12,)], 0, 5), plain_units(model))


def test_labels_that_the_network_has_no_output_for_are_refused() -> None:
    model, split = BY_NAME["perceptron"].model(), make_split([(12,)], 40, 9)
    with pytest.raises(InputMismatch, match="up to 8, but the network has 5 outputs"):
        SensitivityEngine(model, split, plain_units(model)).baseline()


def test_an_output_of_another_form_is_refused() -> None:
    model = BY_NAME["u-net"].model()
    model.module.graph.output_node().args = (
        next(n for n in model.module.graph.nodes if n.name == "join"),
    )
    model.module.recompile()
    with pytest.raises(InputMismatch, match=r"\(batch, classes\)"):
        SensitivityEngine(model, BY_NAME["u-net"].split(8), plain_units(model)).baseline()
