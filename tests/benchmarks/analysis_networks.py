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


def resnet18(samples: int = 128) -> tuple[CanonicalModel, Split]:
    """ResNet-18 (He et al., 2016) at 64 px, 200 classes."""
    torch.manual_seed(0)
    images = _images(samples, 64)
    return exported(randomise_norms(ResNet18(200)), images), _labelled(images, 200)


def lstm(samples: int = 256) -> tuple[CanonicalModel, Split]:
    """A two-layer LSTM (Hochreiter and Schmidhuber, 1997) over 64 steps of 40 numbers."""
    torch.manual_seed(0)
    steps = np.random.default_rng(0).standard_normal((samples, 64, 40)).astype(np.float32)
    return exported(Listener(), steps), _labelled(steps, 10)


def vit6(samples: int = 128) -> tuple[CanonicalModel, Split]:
    """A six-layer vision transformer (Dosovitskiy et al., 2021), 64 px in patches of 8."""
    torch.manual_seed(0)
    images = _images(samples, 64)
    return exported(VisionTransformer(), images), _labelled(images, 100)


def bert12(samples: int = 128) -> tuple[CanonicalModel, Split]:
    """A 12-layer encoder like BERT's (Devlin et al., 2019), 64 tokens with padding."""
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    tokens = generator.integers(1, 2000, (samples, 64))
    for row, length in enumerate(generator.integers(20, 65, samples)):
        tokens[row, length:] = 0
    return exported(TextEncoder(), tokens), _labelled(tokens, 4)


def _images(samples: int, size: int) -> np.ndarray:
    """Smooth random pictures: noise on a coarse grid, enlarged."""
    coarse = torch.randn(samples, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return functional.interpolate(coarse, size=(size, size), mode="bicubic").numpy()


def _labelled(array: np.ndarray, classes: int) -> Split:
    return split_of([array], np.random.default_rng(1).integers(0, classes, len(array)))


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


class WideBlock(nn.Module):
    """The basic block as torchvision writes it: in-place activations, shortcuts B."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or width_in != width:
            convolution = nn.Conv2d(width_in, width, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet18(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        blocks: list[nn.Module] = []
        for width_in, width in ((64, 64), (64, 128), (128, 256), (256, 512)):
            stride = 1 if width_in == width else 2
            blocks += [WideBlock(width_in, width, stride), WideBlock(width, width, 1)]
        self.layers = nn.Sequential(*blocks)
        self.fc = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Listener(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(40, 128, num_layers=2, batch_first=True)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class VisionBlock(nn.Module):
    """Norm first, queries, keys and values in one layer, as timm writes it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class VisionTransformer(nn.Module):
    def __init__(self, width: int = 192, depth: int = 6, heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 65, width) * 0.02)
        self.blocks = nn.Sequential(*[VisionBlock(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 100)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class TextBlock(nn.Module):
    """Norm last, three projections, a mask, as transformers writes BERT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.dense = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=1e-12)
        self.intermediate = nn.Linear(width, 4 * width)
        self.output = nn.Linear(4 * width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        parts = [part(x).view(shape).transpose(1, 2) for part in (self.query, self.key, self.value)]
        mixed = functional.scaled_dot_product_attention(*parts, attn_mask=mask)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        x = self.norm1(self.dense(mixed) + x)
        return self.norm2(self.output(functional.gelu(self.intermediate(x))) + x)


class TextEncoder(nn.Module):
    def __init__(self, width: int = 128, depth: int = 12, heads: int = 4) -> None:
        super().__init__()
        self.words = nn.Embedding(2000, width, padding_idx=0)
        self.positions = nn.Parameter(torch.randn(1, 64, width) * 0.5)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList([TextBlock(width, heads) for _ in range(depth)])
        self.pooler = nn.Linear(width, width)
        self.classifier = nn.Linear(width, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = (tokens != 0)[:, None, None, :]
        x = self.norm(self.words(tokens) + self.positions)
        for layer in self.layers:
            x = layer(x, mask)
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))
