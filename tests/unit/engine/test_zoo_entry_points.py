"""Networks that an operator's own package registers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from app.domain.errors import InvalidInput
from worker.engine.formats.models import open_model
from worker.engine.formats.zoo import architecture
from worker.engine.formats.zoo.fit import compare, misfit

PACKAGE = """
import torch
from torch import nn


class Tagger(nn.Module):
    def __init__(self, width, labels):
        super().__init__()
        self.first, self.second = nn.Linear(6, width), nn.Linear(width, labels)
        self.second.bias.requires_grad_(False)

    def forward(self, x, *, scale):
        return self.second(torch.relu(self.first(x))) * scale


def tagger(width, labels=3):
    return Tagger(width, labels), (torch.zeros(2, 6),), {"scale": torch.ones(2, 1)}


def broken():
    return 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = tmp_path / "site"
    metadata = folder / "own_networks-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "own_networks.py").write_text(PACKAGE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: own-networks\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[prunescope.architectures]\ntagger = own_networks:tagger\nbroken = own_networks:broken\n"
    )
    monkeypatch.syspath_prepend(folder)
    yield __import__("own_networks")
    sys.modules.pop("own_networks", None)


def test_a_registered_network(tmp_path: Path, package: Any) -> None:
    torch.manual_seed(0)
    net = package.Tagger(4, 3).eval()
    torch.save(net.state_dict(), tmp_path / "a.pth")
    result = open_model(
        tmp_path / "a.pth", architecture="tagger", architecture_args={"width": 4}, folder=tmp_path
    )
    assert result.model is not None
    x, scale = torch.randn(5, 6), torch.rand(5, 1)
    assert torch.equal(result.model.module(x, scale), net(x, scale=scale))
    assert list(result.model.state_dict()) == list(net.state_dict())
    assert result.model.fixed_batch is None
    assert not result.model.state_dict()["second.bias"].requires_grad


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("taggger", {}, "no architecture named 'taggger' .did you mean 'tagger'"),
        ("os:system", {}, "no architecture named"),
        ("tagger", {"widht": 4}, "no argument 'widht' .did you mean 'width'"),
        ("tagger", {}, "can't be built"),
        ("broken", {}, "returns no"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, package: Any, name: str, arguments: dict[str, Any], words: str
) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(InvalidInput, match=words):
        open_model(
            tmp_path / "a.pth", architecture=name, architecture_args=arguments, folder=tmp_path
        )


def test_a_missing_library_comes_with_the_line_that_installs_it() -> None:
    assert "pip install 'prunescope[timm]'" in architecture.not_installed("timm").hint


def test_the_nearest_names_prefer_the_same_shape() -> None:
    net = nn.ModuleDict({"encoder": nn.Linear(3, 4), "decoder": nn.Linear(4, 3)})
    uploaded = {
        "encoder.weight": (4, 3),
        "encoder.bias": (4,),
        "decoder.weights": (3, 4),
        "decoder.bias2": (9,),
    }
    fit = compare(net, uploaded)
    assert fit.missing == ("decoder.weight", "decoder.bias")
    assert fit.unexpected == ("decoder.weights", "decoder.bias2")
    message = misfit(fit, net, uploaded, "x").message
    assert "decoder.weight (nearest, of the same shape: decoder.weights)" in message
    assert "decoder.bias (nearest: decoder.bias2, [9])" in message
