"""What a network predicts is found out, or said why it can't be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from app.domain.errors import InputMismatch, InvalidInput
from app.domain.metrics import Kind
from tests.unit.engine.objectives.kinds import CASES, Case
from tests.unit.engine.traced import split_of, trace
from worker.engine.objectives import (
    LabelFacts,
    MultiLabel,
    Positions,
    Regression,
    SingleLabel,
    choose,
    first_tensor,
    label_facts,
    objective_for,
)

C, R, L = "classification", "regression", "language-modelling"


def whole(*shape: int, low: int = 0, high: int = 1, binary: bool | None = None) -> LabelFacts:
    return LabelFacts(shape, True, low, high, high <= 1 if binary is None else binary)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_networks_and_data_of_each_kind(case: Case) -> None:
    objective = objective_for(case.model(), case.split(20))
    assert objective.kind is case.kind
    if isinstance(objective, Positions):
        assert objective.axis == (1 if case.name == "segmentation" else -1)
    if isinstance(objective, MultiLabel):
        assert objective.probabilities == (case.name == "labels-sigmoid")


@pytest.mark.parametrize(
    ("task", "labels", "output", "expected"),
    [
        (C, whole(), (2, 2), SingleLabel(2)),
        (C, LabelFacts((4,), False, 0.0, 1.0), (2, 4), MultiLabel(4)),
        (C, whole(1), (2, 1), MultiLabel(1)),
        (C, whole(6, high=3), (2, 6, 4), Positions(Kind.PER_POSITION, 4, (6,), -1)),
        (C, whole(6, high=3), (2, 4, 6), Positions(Kind.PER_POSITION, 4, (6,), 1)),
        (C, whole(4, high=3), (2, 4, 4), Positions(Kind.PER_POSITION, 4, (4,), -1)),
        (C, whole(5, 5, high=3), (2, 5, 5, 5), Positions(Kind.PER_POSITION, 5, (5, 5), 1)),
        (C, whole(5, 4, high=2), (2, 5, 4, 3), Positions(Kind.PER_POSITION, 3, (5, 4), -1)),
        (R, LabelFacts((), False, -1e3, 1e6, False), (2, 1), Regression(())),
        (R, LabelFacts((1,), False, -1e3, 1e6, False), (2,), Regression((1,))),
        (R, whole(3, 2), (2, 3, 2), Regression((3, 2))),
        (L, whole(8, high=9), (2, 8, 10), Positions(Kind.LANGUAGE_MODELLING, 10, (8,))),
    ],
)
def test_shapes_that_belong_together(
    task: str, labels: LabelFacts, output: tuple[int, ...], expected: object
) -> None:
    assert choose(task, labels, output) == expected


@pytest.mark.parametrize(
    ("task", "labels", "output", "words"),
    [
        (C, whole(), None, "no tensor"),
        (C, whole(), (), "single number"),
        (C, whole(), (2, 1), "single output.*shape .samples, 1.*as a regression"),
        (C, whole(high=9), (2, 4), r"up to 9, but the network has 4 outputs.*subtract 1"),
        (C, whole(low=-1), (2, 4), "go down to -1"),
        (C, whole(), (2, 7, 3), r"gives \(7, 3\).*labels for each position"),
        (C, LabelFacts((), False, 0.5, 1.5, False), (2, 4), "fractions.*as a regression"),
        (C, whole(6, high=3), (2, 5, 4), r"labels for \(6\) positions.*gives \(5, 4\)"),
        (C, whole(6, high=3), (2, 6, 1), "single output for each position.*two for yes and no"),
        (C, whole(6, high=4), (2, 6, 4), "up to 4, but the network has 4"),
        (C, LabelFacts((6,), False, 0.0, 3.0, False), (2, 6, 4), "has to be a whole number"),
        (C, whole(6, high=3), (2, 6), "go up to 3.*score for each class"),
        (C, whole(6), (2, 5), "6 yes/no labels a sample, the network 5 outputs"),
        (C, whole(1, high=3), (2, 4), r"save y.reshape\(-1\)"),
        (C, whole(5, 4), (2, 5, 4), "one more axis.*two of them for yes and no"),
        (R, LabelFacts((3,), False), (2, 2), "3 numbers to predict.*gives 2 numbers"),
        (R, LabelFacts((), False), (2, 4), "one number to predict.*gives 4 numbers"),
        (L, whole(8, high=11), (2, 8, 10), "ids go up to 11, but the network knows 10 tokens"),
        (L, whole(8, low=-7, high=9), (2, 8, 10), "ids go down to -7"),
        (L, whole(8, high=2**20), (2, 8, 10), "ids go up to 1048576"),
        (L, whole(8, high=9), (2, 7, 10), r"8 tokens, the network gives \(7, 10\)"),
        (L, whole(8, high=9), (2, 10), "scores of the whole vocabulary at each token"),
        (L, whole(), (2, 10), "one token id a position"),
    ],
)
def test_shapes_that_do_not_are_refused_with_a_way_out(
    task: str, labels: LabelFacts, output: tuple[int, ...] | None, words: str
) -> None:
    with pytest.raises(InputMismatch, match=f"(?s){words}") as caught:
        choose(task, labels, output)
    assert caught.value.hint


def test_labels_are_looked_at_without_the_ignored_ones() -> None:
    x = np.zeros((4, 3), np.float32)
    labels = np.array([[0, 2], [-100, 1], [-100, -100], [2, 0]])
    assert label_facts(split_of([x], labels)) == LabelFacts((2,), True, 0.0, 2.0, False)
    numbers = replace(split_of([x], np.array([-100.0, 5, 1, 2])), task=R)
    assert label_facts(numbers) == LabelFacts((), False, -100.0, 5.0, False)
    nothing = split_of([x], np.full((4, 2), -100))
    assert label_facts(nothing).high is None


def test_a_regression_knows_its_labels() -> None:
    x = np.zeros((4, 3), np.float32)
    split = replace(split_of([x], np.array([1.0, 2, 3, 6], np.float32)), task=R)
    model = trace(nn.Sequential(nn.Linear(3, 1)))
    objective = objective_for(model, split)
    assert isinstance(objective, Regression)
    assert objective.mean is not None
    assert objective.mean.tolist() == [3.0]
    assert objective.steepness == pytest.approx(3.5)


def test_nothing_can_be_found_out_from_an_empty_split() -> None:
    with pytest.raises(InvalidInput, match="no samples"):
        objective_for(CASES[0].model(), CASES[0].split(0))


def test_logits_of_an_output_with_names_come_first() -> None:
    one, two = torch.zeros(1), torch.zeros(2)
    assert first_tensor({"loss": one, "logits": two}) is two
    assert first_tensor({"hidden": one, "other": two}) is one
    assert first_tensor((None, [two, one])) is two
    assert first_tensor({"logits": None, "rest": (one,)}) is one
    assert first_tensor([]) is None
