"""Networks and real data that whole analyses are timed on."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from tests.unit.engine.networks import canonical
from tests.unit.engine.traced import TracedModel, make_split, randomise_norms, split_of, trace
from worker.engine.formats.splits import Split
from worker.engine.graph import CanonicalModel

DATA_VARIABLE = "PRUNESCOPE_BENCH_DATA"


def data_folder() -> Path | None:
    """The folder with cifar10_part.npz and resnet20_cifar10.th, where there is one."""
    named = os.environ.get(DATA_VARIABLE)
    folder = Path(named) if named else None
    return folder if folder and (folder / "resnet20_cifar10.th").is_file() else None


def digits() -> tuple[CanonicalModel, Split]:
    """Four convolutions with batch norm on scikit-learn's digits (8 x 8, 450 samples)."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    width = 1
    for at, out in enumerate((16, 32, 32, 64)):
        layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if at in (1, 3) else []
        width = out
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4, 10))
    data = load_digits()
    images = (data.images[:450, None] / 16).astype(np.float32)
    return exported(randomise_norms(network), images), split_of([images], data.target[:450])


def resnet20(samples: int = 192) -> tuple[CanonicalModel, Split]:
    """A trained ResNet-20 (He et al., 2016, shortcuts A) on real CIFAR-10 test images."""
    folder = data_folder()
    if folder is None:
        raise FileNotFoundError(f"{DATA_VARIABLE} names no folder with the ResNet-20 files")
    network = ResNet20()
    stored = torch.load(folder / "resnet20_cifar10.th", map_location="cpu", weights_only=True)
    weights = {key.removeprefix("module."): w for key, w in stored["state_dict"].items()}
    network.load_state_dict(weights)
    with np.load(folder / "cifar10_part.npz") as data:
        images = data["x_test"][:samples].astype(np.float32) / 255
        labels = data["y_test"][:samples].astype(np.int64)
    images = (images - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    images = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
    return exported(network, images), split_of([images], labels)


def deep(depth: int) -> tuple[TracedModel, Split]:
    """A perceptron of `depth` equal layers: what a cell costs as units become many."""
    torch.manual_seed(0)
    layers = [part for _ in range(depth - 1) for part in (nn.Linear(64, 64), nn.ReLU())]
    return trace(nn.Sequential(*layers, nn.Linear(64, 10))), make_split([(64,)], 256, 10)


def exported(network: nn.Module, images: np.ndarray) -> CanonicalModel:
    with tempfile.TemporaryDirectory() as folder:
        return canonical(network.eval(), (torch.from_numpy(images[:4]),), Path(folder))


class Halved(nn.Module):
    """Shortcut A: every other pixel, the missing channels zero."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))


class Block(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        same = stride == 1 and width_in == width
        self.shortcut = nn.Sequential() if same else Halved((width - width_in) // 2)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(out + self.shortcut(x))


class ResNet20(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*[Block(16, 16, 1) for _ in range(3)])
        self.layer2 = nn.Sequential(Block(16, 32, 2), *[Block(32, 32, 1) for _ in range(2)])
        self.layer3 = nn.Sequential(Block(32, 64, 2), *[Block(64, 64, 1) for _ in range(2)])
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))
