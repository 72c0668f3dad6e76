"""Parameters and multiply-accumulates of a layer, against formulas worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.unit.engine.exports import DYNAMIC, STATIC, export
from tests.unit.engine.models import ZOO, BasicBlock, ResNet
from worker.engine.cost import Layer
from worker.engine.formats.pt2 import load_model
from worker.engine.units import weight_units


def layers_of(net: nn.Module, *shape: int, folder: Path, way: str = DYNAMIC) -> dict[str, Layer]:
    path = export(net.eval(), (torch.randn(3, *shape),), folder / "m.pt2", way)
    return {layer.path: layer for layer in load_model(path, "pt2").layers}


@pytest.mark.parametrize("way", [DYNAMIC, STATIC])
@pytest.mark.parametrize(
    ("net", "shape", "macs", "out"),
    [
        (nn.Linear(7, 5), (7,), 7 * 5, (5,)),
        (nn.Linear(7, 5), (4, 7), 4 * 7 * 5, (4, 5)),
        (nn.Conv1d(2, 6, 3, stride=2), (2, 9), 4 * 6 * 2 * 3, (6, 4)),
        (nn.Conv2d(3, 8, (3, 5), padding=1), (3, 9, 9), 9 * 7 * 8 * 3 * 15, (8, 9, 7)),
        (nn.Conv2d(8, 8, 3, groups=8), (8, 6, 6), 16 * 8 * 9, (8, 4, 4)),
        (nn.Conv2d(6, 4, 1, groups=2), (6, 5, 5), 25 * 4 * 3, (4, 5, 5)),
        (nn.Conv3d(2, 3, 2), (2, 3, 4, 5), 2 * 3 * 4 * 3 * 2 * 8, (3, 2, 3, 4)),
        (nn.ConvTranspose2d(4, 2, 2, stride=2), (4, 5, 5), 25 * 4 * 2 * 4, (2, 10, 10)),
    ],
)
def test_one_layer(
    tmp_path: Path,
    net: nn.Module,
    shape: tuple[int, ...],
    macs: int,
    out: tuple[int, ...],
    way: str,
) -> None:
    layer = layers_of(nn.Sequential(net), *shape, folder=tmp_path, way=way)["0"]
    assert layer.macs == macs
    assert layer.output_shape == (None, *out)
    assert layer.parameters == sum(p.numel() for p in net.parameters())
    assert layer.type == type(net).__name__


def test_resnet_20_has_the_published_costs(tmp_path: Path) -> None:
    """40,813,184 multiply-accumulates and 270,896 weights: CIFAR ResNet-20, shortcut option B."""

    def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, stride, "B")
        return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1, "B") for _ in range(2)))

    net = ResNet("B")
    net.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
    net.bn1 = nn.BatchNorm2d(16)
    net.layer1 = stage(16, 16, 1)
    net.layer2 = nn.Sequential(stage(16, 32, 2), stage(32, 64, 2))
    net.linear = nn.Linear(64, 10)
    path = export(net.eval(), (torch.randn(2, 3, 32, 32),), tmp_path / "m.pt2")
    model = load_model(path, "pt2")
    assert sum(layer.macs for layer in model.layers) == 40_813_184
    assert sum(unit.size for unit in weight_units(model) if unit.prunable) == 270_896


@pytest.mark.parametrize("name", ZOO)
def test_layers_account_for_every_parameter_once(name: str, tmp_path: Path) -> None:
    net, inputs = ZOO[name]()
    model = load_model(export(net, inputs, tmp_path / "m.pt2"), "pt2")
    assert sum(layer.parameters for layer in model.layers) == sum(
        p.numel() for p in net.parameters()
    )
    assert len({layer.path for layer in model.layers}) == len(model.layers)


def test_products_count_for_the_owner_of_the_weight(tmp_path: Path) -> None:
    net, inputs = ZOO["functional_parameters"]()
    model = load_model(export(net, inputs, tmp_path / "m.pt2"), "pt2")
    macs = {layer.path: layer.macs for layer in model.layers}
    assert macs[""] == 16 * 6 * 27
    assert macs["std"] == 16 * 6 * 6 * 9
    assert macs["head"] == 6 * 4


def test_attention_counts_its_products(tmp_path: Path) -> None:
    net, inputs = ZOO["vision_transformer"]()
    model = load_model(export(net, inputs, tmp_path / "m.pt2"), "pt2")
    macs = {layer.path: layer.macs for layer in model.layers}
    assert macs["attention"] == 2 * 10 * 10 * 8
    assert macs["attention.qkv"] == 10 * 8 * 24


def test_recurrent_layers_count_their_weights_at_every_step(tmp_path: Path) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 6, batch_first=True)
            self.head = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(x)[0][:, -1])

    layers = layers_of(Recurrent(), 5, 4, folder=tmp_path)
    assert layers["lstm"].macs == 5 * (4 * 6 * 4 + 4 * 6 * 6)
