"""Removal orders, masks and baselines, against sorting done by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import InvalidInput
from tests.unit.engine.architectures import BY_NAME
from tests.unit.engine.naive import parameter, smallest_removed
from tests.unit.engine.traced import plain_units
from worker.engine.baselines import BASELINES, baseline_masks, share_out
from worker.engine.criteria import CRITERIA, get_criterion
from worker.engine.criteria.random import random_scores
from worker.engine.masks import MaskSet, mask_for, removal_order, removal_rank

MODEL = BY_NAME["resnet"].model()
UNITS = plain_units(MODEL)
PRUNABLE = [unit for unit in UNITS if unit.prunable]
plans = st.dictionaries(
    st.sampled_from([unit.id for unit in PRUNABLE]), st.floats(0, 1, allow_nan=False)
)


def test_equal_scores_leave_by_their_place_and_nan_last() -> None:
    scores = torch.tensor([[2.0, 0.0, math.nan], [1.0, 0.0, math.inf]])
    assert removal_order(scores).tolist() == [1, 4, 3, 0, 5, 2]
    assert mask_for(removal_order(scores), 0.5, (2, 3)).tolist() == [
        [True, False, True],
        [False, False, True],
    ]


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0]), max_size=30),
    sparsity=st.floats(0, 1),
)
def test_masks_remove_the_smallest_exactly(values: list[float], sparsity: float) -> None:
    weight = torch.tensor(values)
    order = removal_order(weight.abs())
    kept = mask_for(order, sparsity, weight.shape)
    assert int((~kept).sum()) == round(sparsity * len(values))
    assert torch.equal(weight * kept, smallest_removed(weight, sparsity))
    rank = removal_rank(order)
    assert rank[order].tolist() == list(range(len(values)))


@settings(max_examples=30, deadline=None)
@given(plan=plans)
def test_a_plan_zeroes_what_it_says_and_is_taken_back_to_the_bit(plan: dict[str, float]) -> None:
    masks = MaskSet.from_plan(MODEL, UNITS, plan)
    before = {key: value.clone() for key, value in MODEL.state_dict().items()}
    with masks.applied(MODEL):
        for unit in PRUNABLE:
            expected = smallest_removed(before[unit.id], round(plan.get(unit.id, 0.0), 6))
            assert torch.equal(parameter(MODEL, unit.id), expected)
    after = MODEL.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    removed = {unit.id: round(round(plan.get(unit.id, 0), 6) * unit.size) for unit in PRUNABLE}
    assert masks.removed() == {unit: count for unit, count in removed.items() if count}
    total = sum(unit.size for unit in PRUNABLE)
    assert masks.sparsity() == sum(removed.values()) / total
    for unit, achieved in masks.achieved().items():
        assert achieved == removed[unit] / parameter(MODEL, unit).numel()


def test_masks_hold_after_an_optimiser_step() -> None:
    model = BY_NAME["plain-cnn"].model()
    masks = MaskSet.from_plan(model, plain_units(model), {"0.weight": 0.5, "9.weight": 0.9})
    masks.apply_(model)
    optimiser = torch.optim.SGD(model.module.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        model.module(torch.randn(4, 1, 8, 8)).square().mean().backward()
        optimiser.step()
        assert bool((parameter(model, "0.weight")[~masks.masks["0.weight"]] != 0).any())
        masks.apply_(model)
        for unit, mask in masks.masks.items():
            assert not parameter(model, unit)[~mask].any()
            assert parameter(model, unit)[mask].all()


def test_all_names_of_a_tied_tensor_are_pruned_and_named() -> None:
    model = BY_NAME["tied-weights"].model()
    units = plain_units(model)
    masks = MaskSet.from_plan(model, units, {"embedding.weight": 0.5})
    masks.apply_(model)
    embedding, head = parameter(model, "embedding.weight"), parameter(model, "head.weight")
    assert embedding.data_ptr() == head.data_ptr()
    assert int((head == 0).sum()) == 44
    tensors = masks.as_tensors()
    assert sorted(tensors) == ["embedding.weight", "head.weight"]
    assert all(mask.dtype == torch.bool for mask in tensors.values())
    assert torch.equal(tensors["head.weight"], embedding != 0)


@pytest.mark.parametrize(
    ("plan", "words"),
    [({"layer.weight": 0.5}, "layer.weight"), ({"1.bias": 0.5}, "one dimension"),
     ({"0.weight": 1.5}, "outside 0 to 1"), ({"0.weight": math.nan}, "outside 0 to 1")],
)  # fmt: skip
def test_a_plan_that_does_not_fit_is_refused_in_words(plan: dict[str, float], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        MaskSet.from_plan(MODEL, UNITS, plan)


def test_a_plan_may_name_what_it_leaves_alone() -> None:
    assert MaskSet.from_plan(MODEL, UNITS, {"1.bias": 0.0}).masks == {}


@settings(max_examples=25, deadline=None)
@given(plan=plans, name=st.sampled_from(BASELINES))
def test_every_baseline_removes_exactly_as_much_as_the_plan(
    plan: dict[str, float], name: str
) -> None:
    planned = MaskSet.from_plan(MODEL, UNITS, plan).removed()
    masks = baseline_masks(name, MODEL, UNITS, plan, seed=1)
    removed = masks.removed()
    total = sum(planned.values())
    assert sum(removed.values()) == total
    if name == "random":
        assert removed == planned
    if name == "uniform":
        share = total / sum(unit.size for unit in PRUNABLE)
        for unit in PRUNABLE:
            assert abs(removed.get(unit.id, 0) - share * unit.size) < 1
    if name == "global-magnitude":
        gone, kept = [], [math.inf]
        for unit in PRUNABLE:
            weight = parameter(MODEL, unit.id).detach().abs()
            mask = masks.masks.get(unit.id, torch.ones_like(weight, dtype=torch.bool))
            gone += weight[~mask].tolist()
            kept += weight[mask].tolist()
        assert max(gone, default=0.0) <= min(kept)


def test_uniform_removes_the_smallest_and_random_does_not() -> None:
    plan = {unit.id: 0.5 for unit in PRUNABLE}
    uniform = baseline_masks("uniform", MODEL, UNITS, plan)
    random = baseline_masks("random", MODEL, UNITS, plan, seed=1)
    other = baseline_masks("random", MODEL, UNITS, plan, seed=2)
    for unit in PRUNABLE:
        weight = parameter(MODEL, unit.id).detach()
        assert torch.equal(weight * uniform.masks[unit.id], smallest_removed(weight, 0.5))
        assert not torch.equal(random.masks[unit.id], uniform.masks[unit.id])
        assert not torch.equal(random.masks[unit.id], other.masks[unit.id])


def test_global_magnitude_breaks_ties_by_network_order() -> None:
    model = BY_NAME["perceptron"].model()
    units = plain_units(model)
    with torch.no_grad():
        for value in model.module.parameters():
            value.fill_(1.0)
    masks = baseline_masks("global-magnitude", model, units, {"0.weight": 0.5, "5.weight": 0.5})
    size = units[0].size
    assert masks.removed() == {"0.weight": size // 2 + 40}
    assert masks.masks["0.weight"].reshape(-1).tolist() == [
        place >= size // 2 + 40 for place in range(size)
    ]


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8), part=st.floats(0, 1))
def test_shares_add_up_and_fit(sizes: list[int], part: float) -> None:
    total = int(part * sum(sizes))
    shares = share_out(total, sizes)
    assert sum(shares) == total
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="uniform, random, global-magnitude"):
        baseline_masks("best", MODEL, UNITS, {})
    with pytest.raises(InvalidInput, match="magnitude, random"):
        get_criterion("luck")
    assert all(criterion.name == name for name, criterion in CRITERIA.items())


def test_random_scores_are_the_units_own() -> None:
    first = random_scores((40, 50), "a", 0)
    assert torch.equal(first, random_scores((40, 50), "a", 0))
    assert not torch.equal(first, random_scores((40, 50), "b", 0))
    assert not torch.equal(first, random_scores((40, 50), "a", 1))
    assert first.shape == (40, 50)
    assert abs(float(first.mean()) - 0.5) < 0.03
    assert first.unique().numel() == first.numel()
