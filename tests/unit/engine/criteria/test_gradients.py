"""Taylor, Fisher and SNIP against one backward pass a sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.unit.engine.architectures import BY_NAME
from tests.unit.engine.criteria import slow
from tests.unit.engine.exports import STATIC, export
from tests.unit.engine.models import ZOO
from tests.unit.engine.traced import make_split, plain_units, split_of, trace
from worker.engine.criteria import removals
from worker.engine.criteria import sample_gradients as ways
from worker.engine.criteria.base import Statistic
from worker.engine.criteria.observing import Data, observe
from worker.engine.formats.pt2 import load_model
from worker.engine.formats.splits import Split
from worker.engine.objectives import objective_for
from worker.engine.pulse import Pulse
from worker.engine.units import weight_units

NAMES = ["taylor", "fisher", "snip"]
GRADIENTS = frozenset([Statistic.MEAN_GRADIENT, Statistic.SQUARED_GRADIENT])


def assert_right(
    model: Any, units: Any, split: Split, loss: slow.Loss = slow.cross_entropy
) -> dict[str, Any]:
    """Sums and orders are those of the slow formulas. Gives the way taken to each unit."""
    chosen = [unit for unit in units if unit.prunable]
    keys = [unit.id for unit in chosen]
    mean, squared = slow.gradients(model, split, keys, loss)
    data = Data(split, np.arange(len(split)), objective_for(model, split))
    seen = observe(model, chosen, dict.fromkeys(keys, GRADIENTS), data, Pulse())
    found = removals(model, chosen, NAMES, seed=0, train=split)
    weights = dict(model.module.named_parameters(remove_duplicate=False))
    for key in keys:
        for own, true in (
            (seen[key].mean_gradient, mean[key]),
            (seen[key].squared_gradient, squared[key]),
        ):
            scale = float(true.norm())
            assert float((own - true).norm()) <= 2e-5 * scale, key
        weight = weights[key].detach().double()
        tolerance = 1e-4 * float(squared[key].max() * weight.square().max())
        for name in ("taylor", "fisher"):
            scores = squared[key] * weight**2 + tolerance
            slow.assert_ascending(slow.removal(found, key, name).rank, scores, 1e-3)
        scores = (mean[key] * weight).abs()
        offset = 1e-3 * float(scores.max())
        slow.assert_ascending(slow.removal(found, key, "snip").rank, scores + offset, 1e-3)
    return found


def images(net: str, tmp_path: Path, samples: int = 9, way: str = "dynamic") -> tuple[Any, Split]:
    made, inputs = ZOO[net]()
    model = load_model(export(made, inputs, tmp_path / "m.pt2", way), "pt2")
    generator = np.random.default_rng(0)
    arrays = [
        generator.standard_normal((samples, *x.shape[1:])).astype(np.float32)
        if x.is_floating_point()
        else generator.integers(1, int(x.max()) + 1, (samples, *x.shape[1:]))
        for x in inputs
    ]
    return model, split_of(arrays, generator.integers(0, 2, samples))


@pytest.mark.parametrize(
    "net",
    [
        "conv1d",
        "conv3d",
        "densenet",
        "embedding",
        "functional_parameters",
        "group_and_instance_norm",
        "mixer",
        "mlp",
        "mobilenet",
        "resnet_b",
        "reused",
        "tied",
        "torch_transformer",
        "two_inputs",
        "unet",
        "vision_transformer",
    ],
)
def test_every_kind_of_use(net: str, tmp_path: Path) -> None:
    model, split = images(net, tmp_path)
    assert_right(model, weight_units(model), split)


@pytest.mark.parametrize("name", list(BY_NAME))
def test_graphs_with_views_and_writes_in_place(name: str) -> None:
    model = BY_NAME[name].model()
    assert_right(model, plain_units(model), BY_NAME[name].split(9))


class Recurrent(nn.Module):
    def __init__(self, layer: nn.Module, width: int, time_first: bool = False) -> None:
        super().__init__()
        self.layer, self.head, self.time_first = layer, nn.Linear(width, 4), time_first

    def forward(self, x: Tensor) -> Tensor:
        if self.time_first:
            return self.head(self.layer(x.transpose(0, 1))[0][-1])
        return self.head(self.layer(x)[0].mean(1))


class Cells(nn.Module):
    """Cells called step by step: one weight, used as often as there are steps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.LSTMCell(5, 6), nn.GRUCell(6, 4), nn.RNNCell(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 6)
        c, g, r = x.new_zeros(x.shape[0], 6), x.new_zeros(x.shape[0], 4), x.new_zeros(x.shape[0], 4)
        for step in range(4):
            h, c = self.first(x[:, step], (h, c))
            g = self.second(h, g)
            r = self.third(g, r)
        return r


@pytest.mark.parametrize(
    ("make", "width", "time_first"),
    [
        (lambda: nn.LSTM(5, 6, 2, bidirectional=True, batch_first=True), 12, False),
        (lambda: nn.LSTM(5, 6, 2, proj_size=3), 3, True),
        (lambda: nn.GRU(5, 6, 2, bidirectional=True), 12, True),
        (lambda: nn.GRU(5, 6, bias=False, batch_first=True), 6, False),
        (lambda: nn.RNN(5, 6, 2, nonlinearity="relu", batch_first=True), 6, False),
        (lambda: nn.RNN(5, 6, 2), 6, True),
    ],
)
def test_recurrent_layers(make: Callable[[], nn.Module], width: int, time_first: bool) -> None:
    torch.manual_seed(1)
    model = trace(Recurrent(make(), width, time_first))
    found = assert_right(model, plain_units(model), make_split([(7, 5)], 11, 4))
    assert len(found) >= 9


def test_recurrent_cells(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = load_model(export(Cells(), (torch.randn(3, 4, 5),), tmp_path / "m.pt2"), "pt2")
    assert_right(model, weight_units(model), make_split([(4, 5)], 9, 4))


def test_a_fixed_batch_size(tmp_path: Path) -> None:
    model, split = images("resnet_a", tmp_path, samples=12, way=STATIC)
    model.fixed_batch = 3
    assert_right(model, weight_units(model), split)


class Words(nn.Module):
    """A language model: the token table is the output's matrix too, and knows its places."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = (
            nn.Embedding(15, 8, padding_idx=0),
            nn.Parameter(torch.randn(6, 8)),
        )
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 15, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(self.embed(tokens) + self.places).tanh())


def test_positions_that_are_not_judged() -> None:
    torch.manual_seed(3)
    model = trace(Words(), torch.int64)
    generator = np.random.default_rng(1)
    tokens = generator.integers(0, 15, (13, 6))
    labels = generator.integers(0, 15, (13, 6))
    labels[:, -2:] = -100
    labels[4] = -100
    split = split_of([tokens], labels)

    # One sample without a judged position has no loss, and nothing to say.
    def loss(output: Tensor, target: Tensor) -> Tensor:
        summed = functional.cross_entropy(output[0], target[0], ignore_index=-100, reduction="sum")
        return summed / max(1, int((target != -100).sum()))

    assert_right(model, plain_units(model), split, loss)


def test_regression_and_yes_no_labels() -> None:
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    model = trace(net)
    x = np.random.default_rng(0).standard_normal((14, 5)).astype(np.float32)
    numbers = np.random.default_rng(1).standard_normal((14, 3)).astype(np.float32)
    split = replace(split_of([x], numbers), task="regression")
    assert_right(model, plain_units(model), split, functional.mse_loss)
    answers = (numbers > 0).astype(np.float32)
    assert_right(
        model,
        plain_units(model),
        split_of([x], answers),
        functional.binary_cross_entropy_with_logits,
    )


class Mixing(nn.Module):
    """Samples see each other: a norm by the statistics of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.second((hidden - hidden.mean(0) * 0.5).tanh())


def test_a_network_that_mixes_samples_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = trace(Mixing())
    taken: list[ways.Ways] = []
    original = ways.find_ways

    def spy(*args: Any) -> ways.Ways:
        taken.append(original(*args))
        return taken[-1]

    monkeypatch.setattr("worker.engine.criteria.observing.find_ways", spy)
    model_units = [unit for unit in plain_units(model) if unit.prunable]
    removals(model, model_units, ["taylor"], seed=0, train=make_split([(6,)], 12, 4))
    # What lies before the mean can't be had from a batch; what lies behind it is another matter.
    assert taken[0].general == ("first.weight", "second.weight")


def test_the_way_is_the_fast_one_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[ways.Ways] = []
    original = ways.find_ways

    def spy(*args: Any) -> ways.Ways:
        taken.append(original(*args))
        return taken[-1]

    monkeypatch.setattr("worker.engine.criteria.observing.find_ways", spy)
    for net in ("resnet_b", "vision_transformer", "torch_transformer", "embedding", "tied"):
        model, split = images(net, tmp_path)
        removals(model, weight_units(model), ["taylor"], seed=0, train=split)
        assert taken[-1].general == (), net


def test_weights_and_modes_are_left_alone(tmp_path: Path) -> None:
    model, split = images("mobilenet", tmp_path)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    learns = [p.requires_grad for p in model.module.parameters()]
    model.train_mode(True)
    removals(model, weight_units(model), [*NAMES, "wanda", "sparsegpt"], seed=0, train=split)
    assert model.module.training
    assert [p.requires_grad for p in model.module.parameters()] == learns
    assert all(p.grad is None for p in model.module.parameters())
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_the_same_ranks_in_any_company_and_on_any_number_of_threads(tmp_path: Path) -> None:
    for net in ("vision_transformer", "embedding", "resnet_b"):
        model, split = images(net, tmp_path, samples=40)
        units = [unit for unit in weight_units(model) if unit.prunable]
        every = [*NAMES, "wanda", "sparsegpt"]
        together = removals(model, units, every, seed=0, train=split)
        threads = torch.get_num_threads()
        try:
            for number, unit in enumerate(units):
                torch.set_num_threads(1 + number % 2)
                for name in every:
                    alone = removals(model, [unit], [name], seed=0, train=split)
                    one, other = alone[unit.id, name], together[unit.id, name]
                    assert type(one) is type(other)
                    if hasattr(one, "rank"):
                        assert torch.equal(one.rank, other.rank), (unit.id, name)
        finally:
            torch.set_num_threads(threads)


def test_a_recurrent_layer_is_the_same_in_any_company() -> None:
    torch.manual_seed(1)
    model = trace(Recurrent(nn.LSTM(5, 6, 2, batch_first=True), 6))
    split = make_split([(7, 5)], 40, 4)
    units = [unit for unit in plain_units(model) if unit.prunable]
    together = removals(model, units, ["snip", "taylor", "wanda"], seed=0, train=split)
    for unit in units:
        for name in ("snip", "taylor", "wanda"):
            alone = removals(model, [unit], [name], seed=0, train=split)
            one, other = (slow.removal(f, unit.id, name) for f in (alone, together))
            assert torch.equal(one.rank, other.rank)
