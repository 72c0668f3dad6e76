"""What can't be ranked says so, unit by unit, and the rest goes on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.domain.errors import InvalidInput, Stopped
from tests.unit.engine.criteria import slow
from tests.unit.engine.traced import make_split, plain_units, split_of, trace
from worker.engine.criteria import CRITERIA, Refusal, removals
from worker.engine.masks import MaskSet

LEARNING = [name for name, criterion in CRITERIA.items() if criterion.statistics]
DATALESS = [name for name in CRITERIA if name not in LEARNING]
GRADIENTS = ["taylor", "fisher", "snip"]
INPUTS = ["wanda", "sparsegpt", "sparsegpt-update"]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 3))


def reasons(found: dict, unit: str) -> dict[str, str]:
    return {
        name: refusal.reason
        for (own, name), refusal in found.items()
        if own == unit and isinstance(refusal, Refusal)
    }


def test_without_training_samples() -> None:
    model = trace(net())
    found = removals(model, plain_units(model), list(CRITERIA), seed=0)
    for unit in ("0.weight", "2.weight", "4.weight"):
        said = reasons(found, unit)
        assert set(said) == {*LEARNING, "bn-scale"}
        assert all("no split train" in said[name] for name in LEARNING)


class Unreadable:
    """A split that must not be touched."""

    def __getattr__(self, name: str) -> None:
        raise AssertionError(f"{name} of train was looked at")

    def __len__(self) -> int:
        raise AssertionError("the length of train was looked at")


def test_criteria_of_weights_alone_never_look_at_train() -> None:
    model = trace(net())
    removals(model, plain_units(model), DATALESS, seed=0, train=Unreadable())  # type: ignore[arg-type]


def test_a_weight_of_zeros() -> None:
    made = net()
    with torch.no_grad():
        made[2].weight.zero_()
    model = trace(made)
    found = removals(
        model, plain_units(model), list(CRITERIA), seed=0, train=make_split([(6,)], 20, 3)
    )
    assert reasons(found, "2.weight") == dict.fromkeys(CRITERIA, "Every entry is zero already.")
    # What lies before it has no gradient, and is told so; what lies behind is as good as ever.
    assert set(reasons(found, "4.weight")) == {"bn-scale"}
    removal = slow.removal(found, "0.weight", "taylor")
    assert removal.remark is not None
    # A plan may still name it: nothing changes.
    masks = MaskSet.from_plan(model, plain_units(model), {"2.weight": 0.5, "4.weight": 0.5})
    assert masks.removed() == {"2.weight": 32, "4.weight": 12}


def test_a_constant_weight_is_ranked_by_place_and_remarked_on() -> None:
    made = net()
    with torch.no_grad():
        made[2].weight.fill_(-0.25)
    model = trace(made)
    found = removals(model, plain_units(model), ["magnitude", "lamp", "random"], seed=0)
    for name in ("magnitude", "lamp"):
        removal = slow.removal(found, "2.weight", name)
        assert removal.remark is not None
        assert "by their place alone" in removal.remark
        assert removal.rank.reshape(-1).tolist() == list(range(64))
        assert slow.removal(found, "0.weight", name).remark is None
    assert slow.removal(found, "2.weight", "random").remark is None


class Spoilt(nn.Module):
    """NaN between the second and the third layer, in the forward pass alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(self.first(x).tanh())
        return self.third(torch.log(hidden - 100.0))


def test_activations_that_are_not_numbers() -> None:
    torch.manual_seed(0)
    model = trace(Spoilt())
    names = ["magnitude", *LEARNING]
    found = removals(model, plain_units(model), names, seed=0, train=make_split([(6,)], 20, 3))
    third = reasons(found, "third.weight")
    assert set(third) == set(LEARNING)
    assert all("inputs are NaN" in third[name] for name in INPUTS)
    assert all("gradients are NaN" in third[name] for name in GRADIENTS)
    # The layers before see good inputs, and get no good gradients.
    for unit in ("first.weight", "second.weight"):
        assert set(reasons(found, unit)) == set(GRADIENTS)


def test_weights_that_are_not_numbers() -> None:
    made = net()
    with torch.no_grad():
        made[2].weight[0, 0] = float("nan")
    model = trace(made)
    found = removals(model, plain_units(model), ["magnitude", "lamp"], seed=0)
    assert "weights are NaN" in reasons(found, "2.weight")["lamp"]
    assert int(slow.removal(found, "2.weight", "magnitude").rank[0, 0]) == 63


def test_labels_that_are_of_no_use() -> None:
    model = trace(net())
    x = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    names = ["magnitude", *LEARNING]
    for labels, said in (
        (np.full(20, 7), "Labels go up to 7"),
        (np.full((20, 2), -100), "don't fit the network"),
    ):
        found = removals(model, plain_units(model), names, seed=0, train=split_of([x], labels))
        assert set(reasons(found, "0.weight")) == set(GRADIENTS)
        assert all(said in reason for reason in reasons(found, "0.weight").values())


def test_positions_none_of_which_is_judged() -> None:
    torch.manual_seed(0)
    model = trace(nn.Linear(6, 3))
    x = np.random.default_rng(0).standard_normal((20, 5, 6)).astype(np.float32)
    split = split_of([x], np.full((20, 5), -100))
    found = removals(model, plain_units(model), LEARNING, seed=0, train=split)
    assert set(reasons(found, "weight")) == set(GRADIENTS)
    assert "none of them has a label" in reasons(found, "weight")["snip"]


class Odd(nn.Module):
    """Weights whose inputs can't be seen: changed on the way, looked up, used in two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 6)
        self.plain, self.scaled = nn.Linear(6, 6), nn.Linear(6, 6)
        self.both = nn.Parameter(torch.randn(6, 6))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.plain(self.words(tokens).mean(1))
        x = nn.functional.linear(x, self.scaled.weight / 2, self.scaled.bias)
        return nn.functional.linear(x, self.both) + torch.matmul(x, self.both)


def test_inputs_that_cant_be_seen() -> None:
    torch.manual_seed(0)
    model = trace(Odd(), torch.int64)
    generator = np.random.default_rng(0)
    split = split_of([generator.integers(0, 9, (20, 4))], generator.integers(0, 6, 20))
    found = removals(model, plain_units(model), [*INPUTS, *GRADIENTS], seed=0, train=split)
    for unit, said in (
        ("words.weight", "table of rows"),
        ("scaled.weight", "can't be seen"),
        ("both", "used in two ways"),
    ):
        assert set(reasons(found, unit)) == set(INPUTS)
        assert all(said in reason for reason in reasons(found, unit).values())
    assert reasons(found, "plain.weight") == {}


def test_a_plan_by_a_criterion_that_has_no_order_says_why() -> None:
    model = trace(net())
    units = plain_units(model)
    with pytest.raises(InvalidInput, match=r"0\.weight can't be pruned by the criterion wanda"):
        MaskSet.from_plan(model, units, {"0.weight": 0.5}, "wanda")
    assert MaskSet.from_plan(model, units, {"0.weight": 0.0}, "wanda").removed() == {}


def test_a_stop_is_heard() -> None:
    model = trace(net())
    with pytest.raises(Stopped):
        removals(
            model,
            plain_units(model),
            ["taylor"],
            seed=0,
            train=make_split([(6,)], 400, 3),
            should_stop=lambda: True,
        )


def test_nothing_to_do() -> None:
    model = trace(net())
    assert removals(model, [], list(CRITERIA), seed=0, train=make_split([(6,)], 20, 3)) == {}
    assert removals(model, plain_units(model), [], seed=0) == {}
    with pytest.raises(InvalidInput, match="no criterion called 'luck'"):
        removals(model, plain_units(model), ["luck"], seed=0)
