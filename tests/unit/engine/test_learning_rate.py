"""The schedule, the adaptive peak and the range test against their definitions."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.unit.engine.networks import canonical
from worker.engine.learning_rate import adaptive_peak, range_test, scheduled_rate, weight_change
from worker.engine.masks import MaskSet
from worker.engine.units import weight_units


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 37, 1000])
def test_schedule_warms_up_for_a_tenth_then_falls_to_zero(steps: int) -> None:
    rates = [scheduled_rate(0.4, step, steps) for step in range(steps)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.4)
    assert top == math.ceil(0.1 * steps) - 1
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert all(a > b for a, b in pairwise(rates[top:]))
    falls = [a - b for a, b in pairwise(rates[top:])]
    # The step after the last one would be at zero.
    assert rates[-1] == pytest.approx(falls[-1] if falls else 0.4)
    assert all(fall == pytest.approx(falls[0]) for fall in falls)


def test_peak_follows_the_paper() -> None:
    # eta_max * clip(change / sqrt(s), T_rt / T, 1)
    assert adaptive_peak(0.1, 0.3, 0.81, 5) == pytest.approx(0.1 * 0.3 / 0.9)
    assert adaptive_peak(0.1, 0.001, 0.5, 20) == pytest.approx(0.1 * 0.2)
    assert adaptive_peak(0.1, 0.9, 0.5, 5) == 0.1
    assert adaptive_peak(0.1, 0.0, 0.0, 5) == pytest.approx(0.1 * 0.05)


def test_weight_change_is_the_relative_norm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 5))
    model = canonical(net, (torch.zeros(2, 20),), tmp_path)
    masks = MaskSet.from_plan(model, weight_units(model), {"0.weight": 0.5, "1.weight": 0.8})
    dense = torch.cat([net[0].weight.flatten(), net[1].weight.flatten()])
    first = net[0].weight.flatten().clone()
    first[first.abs().argsort()[:300]] = 0
    second = net[1].weight.flatten().clone()
    second[second.abs().argsort()[:120]] = 0
    pruned = torch.cat([first, second])
    change, sparsity = weight_change(model, masks)
    assert change == pytest.approx(((dense - pruned).norm() / dense.norm()).item(), rel=1e-6)
    assert sparsity == 420 / 750


def test_weights_that_stay_but_change_count_as_change(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 5))
    model = canonical(net, (torch.zeros(2, 20),), tmp_path)
    kept = torch.arange(600).reshape(30, 20) % 3 > 0
    dense = net[0].weight.detach().clone()
    new = torch.where(kept, dense * 1.5, 0.0)
    masks = MaskSet.of_units({"0.weight": kept}, weight_units(model), {"0.weight": new})
    change, sparsity = weight_change(model, masks)
    assert change == pytest.approx(((dense - new).norm() / dense.norm()).item(), rel=1e-6)
    assert sparsity == 1 / 3
    weight = dict(model.module.named_parameters())["0.weight"]
    with masks.applied(model):
        assert torch.equal(weight, new)
        # Whatever training makes of what stays, only the zeros are held.
        with torch.no_grad():
            weight += 1
        masks.apply_(model)
        assert torch.equal(weight, torch.where(kept, new + 1, 0.0))
    assert torch.equal(weight, dense)


@pytest.mark.parametrize("curvature", [0.5, 4.0, 100.0])
def test_range_test_stays_below_the_edge_of_stability(curvature: float) -> None:
    """Gradient descent on c x^2 / 2 diverges above 2 / c: the answer is below it, not far below.

    The gradient is noisy, as that of a batch is.
    """
    position, noise = 10.0, random.Random(0)

    def step(_: int, rate: float) -> float:
        nonlocal position
        loss = curvature * position**2 / 2
        position -= rate * curvature * (position + noise.gauss(0, 1))
        return loss + 1.0

    found = range_test(step)
    assert 0.02 * 2 / curvature < found < 2 / curvature


def test_range_test_ends_at_a_loss_that_is_not_finite() -> None:
    calls = []

    def step(number: int, rate: float) -> float:
        calls.append(rate)
        return 1.0 / (number + 1) if number < 12 else math.nan

    found = range_test(step)
    assert len(calls) == 13
    assert found == pytest.approx(calls[11] / 3)
