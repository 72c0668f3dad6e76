"""The same orders and scores as `torch.nn.utils.prune` and Torch-Pruning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from tests.unit.engine.criteria import slow
from tests.unit.engine.traced import make_split, plain_units, randomise_norms, trace
from worker.engine.criteria import removals
from worker.engine.criteria.filters import distance_sums
from worker.engine.criteria.magnitude import lamp_scores


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.93])
def test_magnitude_removes_what_torch_removes(share: float) -> None:
    net = layers()
    model = trace(net)
    found = removals(model, plain_units(model), ["magnitude", "lamp"], seed=0)
    for at in (0, 3):
        count = round(share * net[at].weight.numel())
        expected = prune.L1Unstructured(count).compute_mask(
            net[at].weight, torch.ones_like(net[at].weight)
        )
        for name in ("magnitude", "lamp"):
            kept = slow.removal(found, f"{at}.weight", name).kept(count)
            assert torch.equal(kept, expected.bool())


@pytest.mark.parametrize(("name", "n"), [("filter-l1", 1), ("filter-l2", 2)])
def test_filters_leave_as_torch_removes_them(name: str, n: int) -> None:
    net = layers()
    model = trace(net)
    found = removals(model, plain_units(model), [name], seed=0)
    for at in (0, 3):
        weight = net[at].weight
        for filters in (1, 3, 7):
            expected = prune.LnStructured(filters, n=n, dim=0).compute_mask(
                weight, torch.ones_like(weight)
            )
            count = filters * weight[0].numel()
            assert torch.equal(
                slow.removal(found, f"{at}.weight", name).kept(count), expected.bool()
            )


def group_of(net: nn.Module, layer: nn.Module, function: Any, example: Tensor) -> Any:
    graph = tp.DependencyGraph().build_dependency(net, example_inputs=example)
    width = layer.weight.shape[0]
    return graph.get_pruning_group(layer, function, idxs=list(range(width)))


def order_of(rank: Tensor) -> list[int]:
    """Filters of axis 0 in the order in which they leave."""
    size = rank[0].numel()
    return (rank.reshape(len(rank), -1)[:, 0].argsort()).tolist() if size else []


@pytest.mark.parametrize(("name", "p"), [("filter-l1", 1), ("filter-l2", 2)])
def test_norms_of_filters(name: str, p: int) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 12, 3))
    group = group_of(net, net[0], tp.prune_conv_out_channels, torch.randn(1, 3, 8, 8))
    scores = tp.importance.MagnitudeImportance(p=p, normalizer=None)(group)
    model = trace(net)
    found = removals(model, plain_units(model), [name], seed=0)
    assert order_of(slow.removal(found, "0.weight", name).rank) == scores.argsort().tolist()


def test_distances_of_filters() -> None:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(3, 12, 3))
    with torch.no_grad():
        # Theirs takes absolute values first, which the paper doesn't: with none below zero it is
        # the same.
        net[0].weight.abs_()
    group = group_of(net, net[0], tp.prune_conv_out_channels, torch.randn(1, 3, 8, 8))
    scores = tp.importance.FPGMImportance(p=1, normalizer=None)(group)
    own = distance_sums(net[0].weight.detach().double().flatten(1))
    assert torch.allclose(own.float(), scores, rtol=1e-4)


def test_the_scale_of_batch_norm() -> None:
    torch.manual_seed(3)
    net = randomise_norms(nn.Sequential(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12)))
    group = group_of(net, net[0], tp.prune_conv_out_channels, torch.randn(1, 3, 8, 8))
    scores = tp.importance.BNScaleImportance(normalizer=None)(group)
    model = trace(net)
    found = removals(model, plain_units(model), ["bn-scale"], seed=0)
    assert order_of(slow.removal(found, "0.weight", "bn-scale").rank) == scores.argsort().tolist()


def test_lamp() -> None:
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(1, 40, bias=False))
    group = group_of(net, net[0], tp.prune_linear_out_channels, torch.randn(1, 1))
    # One weight a filter: theirs of filters is then that of weights.
    scores = tp.importance.LAMPImportance(p=2)(group)
    own = lamp_scores(net[0].weight.detach())
    assert torch.allclose(own.reshape(-1).float(), scores, rtol=1e-4)


def test_first_order_taylor_of_the_mean_gradient_is_snip() -> None:
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(6, 20, bias=False))
    split = make_split([(6,)], 50, 20)
    x, labels = split.batch(0, 50)
    functional.cross_entropy(net(x[0]), labels).backward()
    group = group_of(net, net[0], tp.prune_linear_out_channels, x[0][:1])
    scores = tp.importance.TaylorImportance(normalizer=None)(group)
    expected = (net[0].weight * net[0].weight.grad).detach().abs()
    assert torch.allclose(expected.sum(1), scores)
    net.zero_grad()
    model = trace(net)
    rank = slow.removal(
        removals(model, plain_units(model), ["snip"], seed=0, train=split), "0.weight", "snip"
    ).rank
    slow.assert_ascending(rank, expected, 1e-3)
