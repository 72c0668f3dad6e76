"""Whole-network figures, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from app.domain.errors import InputMismatch, InvalidInput, Stopped
from tests.unit.engine import naive
from tests.unit.engine.architectures import ARCHITECTURES, BY_NAME, Architecture
from tests.unit.engine.traced import make_split, plain_units, split_of, trace
from worker.engine.evaluation import (
    UNDECIDED,
    Evaluation,
    batch_bounds,
    default_batch_size,
    dense_predictions,
    evaluate,
)
from worker.engine.masks import MaskSet
from worker.engine.sensitivity import SensitivityEngine


def test_figures_of_a_network_that_can_be_followed_by_hand() -> None:
    network = nn.Linear(2, 2)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
        network.bias.zero_()
    model = trace(nn.Sequential(network))
    rows = np.array([[1, 0], [0, 1], [2, 1], [3, 0.5]], dtype=np.float32)
    split = split_of([rows], np.array([0, 0, 1, 1]))
    dense = dense_predictions(model, split, batch_size=3)
    # logits: (1, 0) right, (0, 3) wrong, (2, 3) right, (3, 1.5) wrong
    assert dense.classes.tolist() == [0, 1, 1, 0]
    losses = [
        np.log1p(np.exp(-1)),
        np.log1p(np.exp(3)),
        np.log1p(np.exp(-1)),
        np.log1p(np.exp(1.5)),
    ]
    assert dense.evaluation == Evaluation(4, 2, dense.evaluation.loss, 0, 0, 0)
    assert dense.evaluation.loss == pytest.approx(np.mean(losses), rel=1e-12)
    assert dense.evaluation.accuracy == 0.5
    # Three of four entries leave, so that only the 3 is left: (0, 3y)
    masks = MaskSet.from_plan(model, plain_units(model), {"0.weight": 0.75})
    pruned = evaluate(model, split, masks=masks, reference=dense, batch_size=3)
    # classes 0 (tie), 1, 1, 1: the last sample is gained
    assert (pruned.correct, pruned.flips, pruned.lost, pruned.gained) == (3, 1, 0, 1)
    assert network.weight[0, 0] == 1.0
    alone = evaluate(model, split, masks=masks)
    assert (alone.correct, alone.flips, alone.lost, alone.gained) == (3, None, None, None)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.name)
def test_dense_figures_agree_with_the_engine_and_the_naive_loop(
    architecture: Architecture,
) -> None:
    model, split = architecture.model(), architecture.split(70)
    size = default_batch_size(model, split)
    _, _, classes = naive.predict(model, split, size)
    expected = naive.figures(model, split, size, classes)
    engine = SensitivityEngine(model, split, plain_units(model))
    assert engine.batch_size == size
    plain = dense_predictions(model, split)
    assert plain.classes.tolist() == engine.predictions().classes.tolist() == classes
    assert plain.evaluation == engine.baseline()
    assert (plain.evaluation.correct, plain.evaluation.loss) == (expected.correct, expected.loss)


def test_not_a_number_is_wrong_and_equal_only_to_itself() -> None:
    model = trace(nn.Sequential(nn.Linear(1, 2, bias=False)))
    split = split_of([np.array([[np.nan], [1.0]], dtype=np.float32)], np.array([0, 0]))
    with torch.no_grad():
        model.module.get_parameter("0.weight").copy_(torch.tensor([[2.0], [1.0]]))
    dense = dense_predictions(model, split)
    assert dense.classes.tolist() == [UNDECIDED, 0]
    assert dense.evaluation == Evaluation(2, 1, None, 0, 0, 0)
    assert evaluate(model, split, reference=dense) == dense.evaluation


def test_infinite_logits_keep_their_class_but_have_no_loss() -> None:
    model = trace(nn.Sequential(nn.Identity()))
    rows = np.array([[np.inf, 0.0], [-np.inf, 0.0]], dtype=np.float32)
    assert evaluate(model, split_of([rows], np.array([0, 0]))) == Evaluation(2, 1, None)


def test_batch_size_follows_from_shapes_and_evens_out() -> None:
    model = BY_NAME["resnet"].model()
    sizes = {n: default_batch_size(model, BY_NAME["resnet"].split(n)) for n in (1, 31, 700, 1500)}
    assert sizes[1] == 1
    assert sizes[31] == 31
    for samples, size in sizes.items():
        bounds = batch_bounds(samples, size)
        assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])]
        assert bounds[-1][1] == samples
        assert size - (bounds[-1][1] - bounds[-1][0]) < len(bounds)
    assert (
        default_batch_size(BY_NAME["resnet"].model(fixed_batch=7), make_split([(3, 8, 8)], 9, 7))
        == 7
    )


def test_wide_activations_get_smaller_batches() -> None:
    narrow = trace(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.LazyLinear(2)).eval())
    wide = trace(nn.Sequential(nn.Conv2d(1, 64, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    split = make_split([(1, 32, 32)], 2000, 2)
    narrow.module(torch.zeros(1, 1, 32, 32))
    assert default_batch_size(wide, split) < default_batch_size(narrow, split)
    huge = trace(nn.Sequential(nn.Upsample(scale_factor=64), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    # 16 MiB a sample: what is alive at once has to fit
    assert default_batch_size(huge, split) <= 16


def test_progress_and_stop() -> None:
    model, split = BY_NAME["perceptron"].model(), BY_NAME["perceptron"].split(40)
    told: list[float] = []
    evaluate(model, split, batch_size=10, on_progress=told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]
    masks = MaskSet.from_plan(model, plain_units(model), {"0.weight": 0.5})
    before = model.module.get_parameter("0.weight").clone()
    answers = iter([False, True])
    with pytest.raises(Stopped):
        evaluate(model, split, masks=masks, batch_size=10, should_stop=lambda: next(answers))
    assert torch.equal(model.module.get_parameter("0.weight"), before)


def test_evaluation_happens_in_evaluation_mode_and_leaves_training_on() -> None:
    model, split = BY_NAME["plain-cnn"].model(), BY_NAME["plain-cnn"].split(20)
    expected = evaluate(model, split)
    model.train_mode(True)
    assert evaluate(model, split) == expected
    assert model.module.training


def test_what_can_not_be_evaluated_is_refused_in_words() -> None:
    model = BY_NAME["perceptron"].model()
    with pytest.raises(InvalidInput, match="no samples"):
        evaluate(model, make_split([(12,)], 0, 5))
    with pytest.raises(InputMismatch, match="5 outputs"):
        evaluate(model, make_split([(12,)], 40, 9))
