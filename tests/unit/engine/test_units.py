"""Units: every parameter once, in the order of use, with a reason where it can't be pruned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.unit.engine.exports import export
from tests.unit.engine.models import ZOO
from worker.engine import units
from worker.engine.formats.pt2 import load_model
from worker.engine.units import Unit, weight_units


def units_of(name: str, folder: Path) -> tuple[nn.Module, dict[str, Unit]]:
    net, inputs = ZOO[name]()
    model = load_model(export(net, inputs, folder / "m.pt2"), "pt2")
    return net, {unit.id: unit for unit in weight_units(model)}


@pytest.mark.parametrize("name", ZOO)
def test_every_parameter_is_in_exactly_one_unit(name: str, tmp_path: Path) -> None:
    net, found = units_of(name, tmp_path)
    keys = [key for key, _ in net.named_parameters(remove_duplicate=False)]
    members = [key for unit in found.values() for key in unit.members]
    assert sorted(members) == sorted(keys)
    for key, parameter in net.named_parameters():
        assert found[key].shape == tuple(parameter.shape)
        assert found[key].size == parameter.numel()
    assert all(unit.prunable == (unit.reason is None) for unit in found.values())
    assert all(unit.members[0] == unit.id for unit in found.values())


class Backwards(nn.Module):
    """Layers are used in the reverse of the order in which they are declared."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 2)
        self.table = nn.Parameter(torch.randn(3, 4))
        self.cls = nn.Parameter(torch.randn(1, 1, 4))
        self.first = nn.Linear(5, 4)
        self.narrow = nn.Linear(2, 1)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) + self.cls.squeeze(0)
        return self.narrow(self.last(x @ self.table.t()))


def test_order_of_use_and_reasons(tmp_path: Path) -> None:
    path = export(Backwards().eval(), (torch.randn(2, 5),), tmp_path / "m.pt2")
    found = {unit.id: unit for unit in weight_units(load_model(path, "pt2"))}
    assert list(found) == [
        *("first.weight", "first.bias", "cls", "table", "last.weight", "last.bias"),
        *("narrow.weight", "narrow.bias", "unused.weight", "unused.bias"),
    ]
    prunable = [unit.id for unit in found.values() if unit.prunable]
    assert prunable == ["first.weight", "table", "last.weight", "narrow.weight"]
    assert found["first.bias"].reason == units.VECTOR
    assert found["cls"].reason == units.VECTOR
    assert found["unused.weight"].reason == units.UNUSED


def test_tied_keys_are_one_unit(tmp_path: Path) -> None:
    _, found = units_of("tied", tmp_path)
    assert found["embed.weight"].members == ("embed.weight", "decode.weight")
    assert found["first.weight"].members == ("first.weight", "second.weight")
    assert found["embed.weight"].prunable
    assert "decode.weight" not in found
    assert found["unused.weight"].reason == units.UNUSED


def test_parameters_that_are_no_floats(tmp_path: Path) -> None:
    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            codes = torch.randint(-9, 9, (3, 4), dtype=torch.int8)
            self.codes = nn.Parameter(codes, requires_grad=False)
            self.head = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x @ self.codes.t().to(torch.float32))

    path = export(Quantised().eval(), (torch.randn(2, 4),), tmp_path / "m.pt2")
    found = {unit.id: unit for unit in weight_units(load_model(path, "pt2"))}
    assert found["codes"].reason == units.NOT_FLOAT
    assert found["head.weight"].prunable


def test_a_weight_that_is_dropped_out_before_its_use_is_used(tmp_path: Path) -> None:
    """Dropout is a module, and takes the weight as its input (DeBERTa's relative places)."""

    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(4, 3))
            self.drop = nn.Dropout(0.1)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.drop(self.table)

    path = export(Dropped().eval(), (torch.randn(2, 4),), tmp_path / "m.pt2")
    (unit,) = weight_units(load_model(path, "pt2"))
    assert unit.prunable
