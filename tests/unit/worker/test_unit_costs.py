"""What pruning a unit saves: never more than the network spends, and what a count by hand gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from app.domain.prediction import UnitFacts, plan_costs
from tests.unit.engine.exports import export
from worker.engine.formats.pt2 import load_model
from worker.inside.description import describe_units


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.middle = nn.Linear(8, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.middle(self.embed(tokens).mean(1))))


class Bare(nn.Module):
    """Two weights in one module."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(10, 8))
        self.second = nn.Parameter(torch.randn(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.first) @ self.second


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(5, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


def described(make: Callable[[], nn.Module], example: Tensor, folder: Path) -> dict[str, dict]:
    torch.manual_seed(0)
    model = load_model(export(make().eval(), (example,), folder / "net.pt2"), "pt2")
    units = {unit["id"]: unit for unit in describe_units(model)}
    facts = [
        UnitFacts(u["id"], u["size"], u["shape"][0], u["itemsize"], u["macs"])
        for u in units.values()
        if u["prunable"]
    ]
    spent = sum(layer.macs for layer in model.layers)
    _, _, left, _ = plan_costs(
        facts,
        {fact.id: 1.0 for fact in facts},
        total_parameters=0,
        total_macs=spent,
        total_bytes=0,
    )
    assert left == 0, "all weights gone, and something is still multiplied, or less than nothing"
    return units


def test_a_tied_weight_multiplies_wherever_it_is_held(tmp_path: Path) -> None:
    units = described(Tied, torch.randint(0, 20, (3, 6)), tmp_path)
    assert units["embed.weight"]["macs"] == 8 * 20
    assert units["middle.weight"]["macs"] == 8 * 8


def test_weights_of_one_module_share_its_work(tmp_path: Path) -> None:
    units = described(Bare, torch.randn(3, 10), tmp_path)
    assert units["first"]["macs"] == 80
    assert units["second"]["macs"] == 24


def test_recurrent_weights_share_the_work_of_every_step(tmp_path: Path) -> None:
    units = described(Recurrent, torch.randn(3, 4, 5), tmp_path)
    assert units["cell.weight_ih_l0"]["macs"] == 4 * 24 * 5
    assert units["cell.weight_hh_l0"]["macs"] == 4 * 24 * 6
