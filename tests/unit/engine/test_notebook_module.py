"""A user's module in the canonical form: the same answers and names, and the module untouched."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.domain.errors import InvalidInput
from tests.unit.engine.models import ZOO
from tests.unit.engine.networks import canonical, conv_net
from worker.engine.from_module import canonical_form
from worker.engine.units import weight_units

X = torch.randn(2, 1, 8, 8)


@pytest.mark.parametrize("name", ["resnet_a", "reused", "tied", "vision_transformer", "two_inputs"])
def test_it_is_what_an_upload_would_be(tmp_path: Path, name: str) -> None:
    net, inputs = ZOO[name]()
    own = canonical_form(net, inputs, tmp_path)
    uploaded = canonical(copy.deepcopy(net), inputs, tmp_path)
    assert weight_units(own) == weight_units(uploaded)
    assert list(own.state_dict()) == list(net.state_dict())
    with torch.no_grad():
        assert torch.equal(own.module(*inputs), uploaded.module(*inputs))


def test_the_module_is_left_as_it_was(tmp_path: Path) -> None:
    net = conv_net().train()
    net[1].eval()
    net(X).sum().backward()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in net.parameters()]
    modes = [module.training for module in net.modules()]
    model = canonical_form(net, (X,), tmp_path)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.zero_()
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert all(
        torch.equal(parameter.grad, gradient)
        for parameter, gradient in zip(net.parameters(), gradients, strict=True)
    )
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert [module.training for module in net.modules()] == modes


def test_what_wraps_a_network_is_taken_off(tmp_path: Path) -> None:
    net = conv_net()
    names = [unit.id for unit in weight_units(canonical_form(net, (X,), tmp_path))]
    for wrapped in (torch.compile(net), nn.DataParallel(net)):
        units = weight_units(canonical_form(wrapped, (X,), tmp_path))
        assert [unit.id for unit in units] == names


class Undecided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x if float(x.sum()) > 0 else -x)


def refused(module: object, inputs: tuple[Tensor, ...], folder: Path, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        canonical_form(module, inputs, folder)
    assert caught.value.hint


def test_what_can_not_be_exported_is_said(tmp_path: Path) -> None:
    net = Undecided().train()
    refused(net, (torch.randn(2, 8),), tmp_path, "can't be exported")
    assert net.training
    assert net.layer.training


def test_a_network_that_does_not_take_the_inputs_is_said(tmp_path: Path) -> None:
    refused(conv_net(), (torch.randn(2, 5),), tmp_path, r"does not run on .*\(2, 5\).*float32")
    refused(conv_net(), (X, X), tmp_path, "does not run on")


def test_a_network_elsewhere_is_said(tmp_path: Path) -> None:
    refused(conv_net().to("meta"), (X,), tmp_path, "not on the CPU: 0.weight is on meta")


def test_what_is_no_network_is_said(tmp_path: Path) -> None:
    refused(conv_net().state_dict(), (X,), tmp_path, "not a torch.nn.Module")
    refused(nn.ReLU(), (X,), tmp_path, "no parameters")
