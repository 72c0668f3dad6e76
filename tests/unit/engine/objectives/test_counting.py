"""Fast ways of counting against the plain ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.metrics import Kind
from worker.engine.objectives import UNDECIDED, Objective, Positions, SingleLabel
from worker.engine.objectives.areas import BINS, area
from worker.engine.objectives.counting import classes_of, log_softmax, macro_f1

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=80, deadline=None)
@given(SEEDS, st.integers(1, 40), st.integers(1, 90), st.sampled_from([0.01, 3.0, 300.0]))
def test_log_softmax_has_the_bits_of_torch(seed: int, width: int, count: int, scale: float) -> None:
    drawn = scale * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    drawn[torch.rand(drawn.shape) < 0.02] = -torch.inf
    expected = torch.log_softmax(drawn.double(), 1)
    assert torch.equal(log_softmax(drawn).nan_to_num(9.0), expected.nan_to_num(9.0))


@settings(max_examples=80, deadline=None)
@given(SEEDS, st.integers(1, 40), st.integers(1, 60))
def test_the_class_is_the_first_of_the_highest(seed: int, width: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.integers(-3, 3, (count, width)).astype(np.float32)
    values[generator.random(values.shape) < 0.05] = np.nan
    values[generator.random(values.shape) < 0.05] = -np.inf
    for row, found in zip(values.tolist(), classes_of(values), strict=True):
        spoilt = any(value != value for value in row)
        assert found == (UNDECIDED if spoilt else row.index(max(row)))


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 5), st.integers(0, 5))
def test_area_counts_pairs(seed: int, positives: int, negatives: int) -> None:
    generator = np.random.default_rng(seed)
    one, other = (generator.integers(0, 6, count) for count in (positives, negatives))
    counts = [np.bincount(each, minlength=BINS)[None].astype(np.int32) for each in (one, other)]
    found = float(area(counts[0], counts[0] + counts[1])[0])
    if not (positives and negatives):
        assert np.isnan(found)
        return
    # The first bin has the highest scores.
    wins = sum((a < b) + (a == b) / 2 for a in one.tolist() for b in other.tolist())
    assert found == pytest.approx(wins / positives / negatives, rel=1e-15)


def test_macro_f1_of_every_row_leaves_out_classes_that_are_not_there() -> None:
    right = np.array([[2, 0, 0], [0, 0, 0]])
    said = np.array([[3, 1, 0], [0, 0, 0]])
    found = macro_f1(right, said, np.array([2, 0, 0]))
    assert found.tolist() == [(4 / 5 + 0) / 2, 0.0]
    assert np.isnan(macro_f1(right[1:], said[1:], np.zeros(3, dtype=np.int64))).all()


@pytest.mark.parametrize(
    "objective",
    [
        SingleLabel(3),
        SingleLabel(12),
        Positions(Kind.PER_POSITION, 4, (5,)),
        Positions(Kind.LANGUAGE_MODELLING, 23, (5,)),
    ],
    ids=lambda objective: f"{objective.kind.value}-{objective.classes}",
)
def test_a_row_is_the_same_in_any_company(objective: Objective) -> None:
    shape = objective.shape if isinstance(objective, Positions) else ()
    generator = torch.Generator().manual_seed(1)
    classes = objective.classes  # type: ignore[attr-defined]
    outputs = 3 * torch.randn(9, 61, *shape, classes, generator=generator)
    labels = torch.randint(0, classes, (61, *shape), generator=generator)
    dense = labels.roll(1, 0).numpy()
    if shape:
        labels[::3, 1] = -100
    together, alone = objective.tally(9), objective.tally(9)
    for start in range(0, 61, 20):
        own = slice(start, start + 20)
        found = together.add(outputs[:, own], labels[own], dense[own])
        for row in range(9):
            one = alone.add(outputs[row : row + 1, own], labels[own], dense[own], row)
            assert np.array_equal(found[row], one[0])
    for row in range(9):
        assert together.evaluation(row).as_json() == alone.evaluation(row).as_json()
