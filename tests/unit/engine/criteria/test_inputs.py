"""Wanda and SparseGPT against their formulas, column by column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.unit.engine.criteria import slow
from tests.unit.engine.exports import STATIC, export
from tests.unit.engine.traced import make_split, plain_units, split_of, trace
from worker.engine.criteria import Refusal, observing, removals, sparsegpt
from worker.engine.criteria.matrices import MatrixView
from worker.engine.criteria.uses import Dense
from worker.engine.formats.pt2 import load_model
from worker.engine.formats.splits import Split
from worker.engine.masks import MaskSet
from worker.engine.units import weight_units

NAMES = ["wanda", "sparsegpt", "sparsegpt-update"]


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(6, 8, 3, stride=2, dilation=2, bias=False),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(32, 12),
        nn.Tanh(),
        nn.Linear(12, 5),
    )


def case() -> tuple[Any, Split, dict[str, str]]:
    """The model, its samples, and the layer of each unit."""
    model = trace(small_net())
    return model, make_split([(2, 8, 8)], 24, 5), {f"{at}.weight": str(at) for at in (0, 2, 5, 7)}


def parameter(model: Any, key: str) -> Tensor:
    return dict(model.module.named_parameters())[key].detach()


def test_wanda_is_the_papers() -> None:
    model, split, layers = case()
    found = removals(model, plain_units(model), ["wanda"], seed=0, train=split)
    for unit, layer in layers.items():
        weight = parameter(model, unit)
        inputs = slow.inputs_of(model, split, layer)
        removal = slow.removal(found, unit, "wanda")
        for share in (0.25, 0.5, 0.9):
            count = round(share * weight[0].numel()) * len(weight)
            assert torch.equal(removal.kept(count), slow.wanda_kept(weight, inputs, count))
        for count in (1, 7, weight.numel() // 3):
            lost = (~removal.kept(count)).reshape(len(weight), -1).sum(dim=1)
            assert int(lost.sum()) == count
            assert int(lost.max() - lost.min()) <= 1


def test_sparsegpt_orders_by_the_inverse_hessian() -> None:
    model, split, layers = case()
    found = removals(model, plain_units(model), ["sparsegpt"], seed=0, train=split)
    for unit, layer in layers.items():
        scores = slow.sparsegpt_scores(parameter(model, unit), slow.inputs_of(model, split, layer))
        removal = slow.removal(found, unit, "sparsegpt")
        assert removal.weight(3) is None
        slow.assert_ascending(removal.rank, scores, 1e-3)


@pytest.mark.parametrize("block", [128, 7])
def test_sparsegpt_makes_up_for_what_it_removes(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparsegpt, "BLOCK", block)
    model, split, layers = case()
    found = removals(model, plain_units(model), NAMES, seed=0, train=split)
    for unit, layer in layers.items():
        weight = parameter(model, unit)
        inputs = slow.inputs_of(model, split, layer)
        removal = slow.removal(found, unit, "sparsegpt-update")
        for share in (0.3, 0.5, 0.8):
            count = round(share * weight.numel())
            made = removal.weight(count)
            assert made is not None
            assert made.dtype == weight.dtype
            assert made.shape == weight.shape
            kept = removal.kept(count)
            assert int((~kept).sum()) == count
            assert bool((made[~kept] == 0).all())
            expected = slow.sparsegpt(weight, inputs, count, block)
            assert torch.allclose(made.double(), expected, rtol=1e-3, atol=1e-4)

            # What it is for: the layer's outputs stay nearer to what they were.
            def error(other: Tensor, w: Tensor = weight, x: Tensor = inputs) -> float:
                gone = (w.double() - other.double()).reshape(len(w), -1)
                return float((gone @ x.t()).norm())

            assert error(made) < error(weight * kept)


def test_all_counts_from_none_to_all() -> None:
    model, split, _ = case()
    found = removals(model, plain_units(model), NAMES, seed=0, train=split)
    weight = parameter(model, "7.weight")
    removal = slow.removal(found, "7.weight", "sparsegpt-update")
    for count in range(weight.numel() + 1):
        made = removal.weight(count)
        assert made is not None
        assert int((made == 0).sum()) == count
    assert torch.allclose(removal.weight(0), weight, atol=1e-6)


class Groups(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(4, 8, 3, groups=2, padding="same")
        self.line = nn.Conv1d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.line(self.grouped(x).relu().flatten(2)).relu().mean(-1))


def test_groups_meet_their_own_inputs_and_other_axes_count_too() -> None:
    torch.manual_seed(2)
    net = Groups()
    model, split = trace(net), make_split([(4, 5, 5)], 30, 3)
    found = removals(model, plain_units(model), NAMES, seed=0, train=split)
    x = split.batch(0, 30)[0][0]
    with torch.no_grad():
        hidden = net.grouped(x).relu().flatten(2)
    patches = functional.unfold(x, 3, padding=1)
    halves = [p.transpose(1, 2).reshape(-1, 18).double() for p in patches.split(18, dim=1)]
    line = functional.unfold(hidden[:, :, None], (1, 3), padding=(0, 1))
    for unit, parts in (
        ("grouped.weight", [(slice(0, 4), halves[0]), (slice(4, 8), halves[1])]),
        ("line.weight", [(slice(None), line.transpose(1, 2).reshape(-1, 24).double())]),
    ):
        weight = parameter(model, unit)
        expected = torch.cat([slow.sparsegpt_scores(weight[own], x) for own, x in parts])
        slow.assert_ascending(slow.removal(found, unit, "sparsegpt").rank, expected, 1e-3)
        count = weight[0].numel() // 2 * len(weight)
        kept = slow.removal(found, unit, "wanda").kept(count)
        for own, inputs in parts:
            part = weight[own]
            wanted = slow.wanda_kept(part, inputs, weight[0].numel() // 2 * len(part))
            assert torch.equal(kept[own], wanted)


def test_the_states_of_a_recurrent_layer_are_inputs(tmp_path: Path) -> None:
    torch.manual_seed(5)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.LSTM(4, 6, 2, batch_first=True), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x)[0][:, -1])

    net = Net().eval()
    model = load_model(export(net, (torch.randn(3, 7, 4),), tmp_path / "m.pt2"), "pt2")
    split = make_split([(7, 4)], 20, 3)
    found = removals(model, weight_units(model), NAMES, seed=0, train=split)
    x = split.batch(0, 20)[0][0]
    # Each layer as a layer of its own: its outputs are the states that it is given a step later.
    first, second = nn.LSTM(4, 6, batch_first=True), nn.LSTM(6, 6, batch_first=True)
    for layer, at in ((first, 0), (second, 1)):
        layer.load_state_dict(
            {
                key.replace(f"_l{at}", "_l0"): value
                for key, value in net.layer.state_dict().items()
                if key.endswith(f"_l{at}")
            }
        )
    with torch.no_grad():
        lower, _ = first(x)
        upper, _ = second(lower)

    def before(states: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1)

    for key, inputs in (
        ("weight_ih_l0", x),
        ("weight_hh_l0", before(lower)),
        ("weight_ih_l1", lower),
        ("weight_hh_l1", before(upper)),
    ):
        flat = inputs.reshape(-1, inputs.shape[-1]).double()
        weight = parameter(model, f"layer.{key}")
        scores = slow.sparsegpt_scores(weight, flat)
        slow.assert_ascending(slow.removal(found, f"layer.{key}", "sparsegpt").rank, scores, 1e-3)
        kept = slow.removal(found, f"layer.{key}", "wanda").kept(2 * len(weight))
        assert torch.equal(kept, slow.wanda_kept(weight, flat, 2 * len(weight)))


def test_columns_that_are_always_zero_go_first_and_change_nothing() -> None:
    torch.manual_seed(6)
    model = trace(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)))
    x = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    x[:, [1, 4]] = 0
    split = split_of([x], np.random.default_rng(1).integers(0, 3, 40))
    found = removals(model, plain_units(model), NAMES, seed=0, train=split)
    live = [0, 2, 3, 5]
    weight = parameter(model, "0.weight")
    alone = slow.sparsegpt(weight[:, live], torch.from_numpy(x[:, live]).double(), 6)
    for name in ("sparsegpt", "sparsegpt-update"):
        removal = slow.removal(found, "0.weight", name)
        kept = removal.kept(10)
        assert not bool(kept[:, [1, 4]].any())
    made = slow.removal(found, "0.weight", "sparsegpt-update").weight(16)
    assert made is not None
    assert torch.allclose(made[:, live].double(), alone, rtol=1e-3, atol=1e-5)


def test_a_repeated_batch_of_a_fixed_size_weighs_every_sample_alike(tmp_path: Path) -> None:
    torch.manual_seed(7)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    model = load_model(export(net, (torch.randn(4, 6),), tmp_path / "m.pt2", STATIC), "pt2")
    model.fixed_batch = 4
    # Ten samples are two full batches; what is over is left out, never filled with copies.
    split = make_split([(6,)], 10, 3)
    found = removals(model, weight_units(model), ["wanda"], seed=0, train=split)
    inputs = split.batch(0, 8)[0][0].double()
    weight = parameter(model, "0.weight")
    kept = slow.removal(found, "0.weight", "wanda").kept(3 * 8)
    assert torch.equal(kept, slow.wanda_kept(weight, inputs, 3 * 8))


def test_a_joint_plan_updates_every_unit_from_the_dense_networks_inputs() -> None:
    model, split, layers = case()
    units = plain_units(model)
    plan = dict.fromkeys(layers, 0.5)
    joint = MaskSet.from_plan(model, units, plan, "sparsegpt-update", 0, split)
    found = removals(model, units, ["sparsegpt-update"], seed=0, train=split)
    dense = {key: parameter(model, key).clone() for key in layers}
    with joint.applied(model):
        for key in layers:
            count = round(0.5 * dense[key].numel())
            alone = slow.removal(found, key, "sparsegpt-update").weight(count)
            assert torch.equal(parameter(model, key), alone)
    assert all(torch.equal(parameter(model, key), dense[key]) for key in layers)


def test_too_many_columns_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("observing", "moments", "removing"):
        monkeypatch.setattr(f"worker.engine.criteria.{name}.MOST_COLUMNS", 20)
    model, split, _ = case()
    found = removals(model, plain_units(model), NAMES, seed=0, train=split)
    refusal = found["5.weight", "sparsegpt"]
    assert isinstance(refusal, Refusal)
    assert "more than 20 input columns" in refusal.reason
    assert not isinstance(found["5.weight", "wanda"], Refusal)
    assert not isinstance(found["7.weight", "sparsegpt"], Refusal)


def test_little_memory_takes_more_passes_and_gives_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, split, _ = case()
    units = [unit for unit in plain_units(model) if unit.prunable]
    names = ["taylor", *NAMES]
    before = removals(model, units, names, seed=0, train=split)
    monkeypatch.setattr("worker.engine.criteria.removing._BUDGET_BYTES", 1)
    told: list[float] = []
    after = removals(model, units, names, seed=0, train=split, on_progress=told.append)
    assert told[-1] == 1.0
    for key, removal in before.items():
        other = slow.removal(after, *key)
        assert not isinstance(removal, Refusal)
        assert torch.equal(removal.rank, other.rank)
        if key[1] == "sparsegpt-update":
            assert torch.equal(removal.weight(20), other.weight(20))


def test_of_very_many_places_an_even_part_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "ENOUGH_PLACES", 20)
    monkeypatch.setattr(observing, "PLACES_A_COLUMN", 0)
    use = Dense((3, 4), MatrixView())
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((10, 6, 4)))
    # 240 places in all where 60 are seen four times: every twelfth would be enough, but it would
    # be the same place of every other sample, so it is every thirteenth.
    found = observing._products(use, x, 4)
    rows = x.reshape(-1, 4)[::13]
    assert torch.allclose(found[0], rows.t() @ rows)
    assert {at % 6 for at in range(0, 60, 13)} == {0, 1, 2, 3, 4}
    monkeypatch.setattr(observing, "ENOUGH_PLACES", 240)
    everything = x.reshape(-1, 4)
    assert torch.allclose(observing._products(use, x, 4)[0], everything.t() @ everything)
