"""Batch-norm statistics against torch's own `update_bn`, and against sums written out."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn

from app.domain.errors import InvalidInput, Stopped
from tests.unit.engine.networks import canonical, conv_net
from tests.unit.engine.traced import make_split, randomise_norms, split_of, trace
from worker.engine.recalibration import (
    BATCH,
    MAX_BATCHES,
    MAX_SAMPLES,
    Calibration,
    Statistics,
    batch_norms,
    calibration_rows,
    has_batch_norm,
    left_alone,
    recalibrate,
    remarks,
)

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def state_of(model) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def canonical_conv(folder: Path, dropout: float = 0.0):
    net = randomise_norms(conv_net(dropout=dropout))
    return canonical(net, (torch.randn(2, 1, 8, 8),), folder)


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 5), nn.BatchNorm1d(5)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize("samples", [2, 90, 300, 2500])
def test_the_statistics_are_those_of_update_bn(tmp_path: Path, samples: int) -> None:
    model = canonical_conv(tmp_path)
    train = make_split([(1, 8, 8)], samples, 10)
    batches = list(Calibration(model, train, 3))
    reference = copy.deepcopy(model.module)
    update_bn([batch[0] for batch in batches], reference)
    recalibrate(model, train, seed=3)
    assert same(state_of(model), dict(reference.state_dict()))


def test_the_statistics_of_vectors_are_those_of_update_bn() -> None:
    model = trace(randomise_norms(Perceptron()))
    train = make_split([(6,)], 500, 5)
    reference = copy.deepcopy(model.module)
    update_bn([batch[0] for batch in Calibration(model, train, 0)], reference)
    recalibrate(model, train, seed=0)
    assert same(state_of(model), dict(reference.state_dict()))


def test_the_first_layers_statistics_are_means_over_batches(tmp_path: Path) -> None:
    """Written out in float64: unbiased variances, every batch with the same weight."""
    model = canonical_conv(tmp_path)
    train = make_split([(1, 8, 8)], 300, 10)
    conv, norm = model.module.get_submodule("0"), model.module.get_submodule("1")
    means, variances = [], []
    for rows in calibration_rows(300, 5):
        x = torch.from_numpy(train.arrays[0][rows]).double()
        y = functional.conv2d(x, conv.weight.double(), conv.bias.double(), padding=1)
        y = y.permute(1, 0, 2, 3).reshape(8, -1).detach().numpy()
        means.append(y.mean(axis=1))
        variances.append(y.var(axis=1, ddof=1))
    recalibrate(model, train, seed=5)
    np.testing.assert_allclose(norm.running_mean.numpy(), np.mean(means, axis=0), atol=1e-6)
    np.testing.assert_allclose(norm.running_var.numpy(), np.mean(variances, axis=0), rtol=1e-5)
    assert int(norm.num_batches_tracked) == len(means) == 3


def test_only_batch_norms_are_in_training_mode(tmp_path: Path) -> None:
    """Dropout would change what the second batch norm sees: it gives what none gives."""
    with_dropout = canonical_conv(tmp_path, dropout=0.5)
    plain = canonical_conv(tmp_path)
    train = make_split([(1, 8, 8)], 200, 10)
    for model in (with_dropout, plain):
        recalibrate(model, train, seed=0)
    assert same(state_of(with_dropout), state_of(plain))
    assert not any(module.training for module in with_dropout.module.modules())
    assert [layer.momentum for layer in batch_norms(with_dropout).values()] == [0.1, 0.1]


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_network_is_left_as_it_was(tmp_path: Path, training: bool) -> None:
    model = canonical_conv(tmp_path)
    model.train_mode(training)
    recalibrate(model, make_split([(1, 8, 8)], 40, 10), seed=0)
    assert all(module.training == training for module in model.module.modules())


def test_statistics_are_put_in_and_taken_out_bit_for_bit(tmp_path: Path) -> None:
    model = canonical_conv(tmp_path)
    before = state_of(model)
    found = recalibrate(model, make_split([(1, 8, 8)], 200, 10), seed=0)
    after = state_of(model)
    assert found.applied
    assert not same(before, after)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {f"{path}.{name}" for path in batch_norms(model) for name in BUFFERS}
    found.restore()
    found.restore()
    assert same(state_of(model), before)
    with found:
        found.apply()
        assert same(state_of(model), after)
    assert same(state_of(model), before)
    owners = {id(buffer) for buffer in model.state_dict().values()}
    assert len(found.buffers) == 4
    assert all(id(buffer) in owners for buffer in found.buffers)


def test_statistics_may_be_changed_in_and_out_of_inference_mode(tmp_path: Path) -> None:
    model = canonical_conv(tmp_path)
    before = state_of(model)
    found = recalibrate(model, make_split([(1, 8, 8)], 200, 10), seed=0)
    after = state_of(model)
    found.restore()
    fresh = Statistics(found.layers)
    with torch.inference_mode():
        fresh.apply()
    assert same(state_of(model), after)
    fresh.restore()
    fresh.apply()
    with torch.inference_mode():
        fresh.restore()
    assert same(state_of(model), before)


def test_the_same_seed_draws_the_same_samples_and_each_once() -> None:
    one, two = (calibration_rows(5000, 7) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    drawn = np.concatenate(one)
    assert len(drawn) == len(set(drawn.tolist())) == MAX_SAMPLES
    assert not np.array_equal(np.sort(drawn), np.sort(np.concatenate(calibration_rows(5000, 8))))


@pytest.mark.parametrize("samples", [1, 2, 127, 129, 1000, 2047, 10_000])
@pytest.mark.parametrize("size", [1, 5, BATCH])
def test_batches_are_even_and_few(samples: int, size: int) -> None:
    sizes = [len(rows) for rows in calibration_rows(samples, 0, size=size)]
    assert sum(sizes) == min(samples, MAX_SAMPLES, MAX_BATCHES * size)
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) <= MAX_BATCHES


@pytest.mark.parametrize(("samples", "batches"), [(3, 1), (8, 1), (29, 3), (5000, 100)])
def test_a_network_of_one_batch_size_gets_that_size(samples: int, batches: int) -> None:
    rows = calibration_rows(samples, 0, size=8, fixed=True)
    assert [len(each) for each in rows] == [8] * batches


def test_a_network_without_batch_norm_stays_as_it_is() -> None:
    model = trace(nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5)))
    before = state_of(model)
    assert not has_batch_norm(model)
    found = recalibrate(model, make_split([(6,)], 20, 5), seed=0)
    assert found.buffers == []
    assert same(state_of(model), before)
    assert "no batch norm" in remarks(model)[0]


def test_batch_norms_without_statistics_use_those_of_the_batch_anyway() -> None:
    model = trace(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, track_running_stats=False)))
    assert not has_batch_norm(model)


class Called(nn.Module):
    """A batch norm as an operator, with statistics under names of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5)
        self.norm = nn.BatchNorm1d(5)
        self.register_buffer("middle", torch.full((5,), 0.1))
        self.register_buffer("spread", torch.full((5,), 1.3))

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(self.norm(self.layer(x)), self.middle, self.spread)


@pytest.mark.parametrize("read", [True, False])
def test_a_bare_operator_is_named_and_left(tmp_path: Path, read: bool) -> None:
    model = canonical(Called(), (torch.randn(2, 6),), tmp_path) if read else trace(Called())
    before = state_of(model)
    assert len(left_alone(model)) == 1
    assert "as functions" in remarks(model)[0]
    recalibrate(model, make_split([(6,)], 64, 5), seed=0)
    after = state_of(model)
    assert torch.equal(after["middle"], before["middle"])
    assert torch.equal(after["spread"], before["spread"])
    assert not torch.equal(after["norm.running_mean"], before["norm.running_mean"])


def test_a_module_is_no_bare_operator(tmp_path: Path) -> None:
    model = canonical_conv(tmp_path)
    assert left_alone(model) == []
    assert remarks(model) == []


def test_a_single_sample_is_said_and_nothing_changed() -> None:
    model = trace(randomise_norms(Perceptron()))
    before = state_of(model)
    with pytest.raises(InvalidInput, match="more training samples"):
        recalibrate(model, make_split([(6,)], 1, 5), seed=0)
    assert same(state_of(model), before)
    assert not any(module.training for module in model.module.modules())


def test_a_stop_leaves_the_old_statistics(tmp_path: Path) -> None:
    model = canonical_conv(tmp_path)
    before = state_of(model)
    answers = iter([False, True])
    with pytest.raises(Stopped):
        recalibrate(
            model, make_split([(1, 8, 8)], 400, 10), seed=0, should_stop=lambda: next(answers)
        )
    assert same(state_of(model), before)


def test_an_empty_split_is_refused() -> None:
    model = trace(Perceptron())
    empty = split_of([np.zeros((0, 6), np.float32)], np.zeros(0, np.int64))
    with pytest.raises(InvalidInput, match="no samples"):
        recalibrate(model, empty, seed=0)
