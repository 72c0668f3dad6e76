"""One small network for every way in which a weight's change can spread through a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.unit.engine.traced import TracedModel, make_split, randomise_norms, trace
from worker.engine.formats.splits import Split


def plain_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 24),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.Linear(24, 16),
        nn.GELU(),
        nn.Linear(16, 5),
    )


class Residual(nn.Module):
    """A residual block as torchvision writes it: one in-place ReLU used twice, `+=`."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.down: nn.Module | None = None
        if stride != 1 or width_in != width:
            self.down = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.down is None else self.down(x)
        return self.relu(out)


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        Residual(6, 6, 1),
        Residual(6, 8, 2),
        Residual(8, 8, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 7),
    )


class InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze and excite, project, add (MobileNetV3)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, inner, 1, bias=False)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.squeeze = nn.Conv2d(inner, 4, 1)
        self.excite = nn.Conv2d(4, inner, 1)
        self.project = nn.Conv2d(inner, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.Hardswish(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.depthwise(self.act(self.expand(x))))
        scale = functional.hardsigmoid(
            self.excite(functional.relu(self.squeeze(functional.adaptive_avg_pool2d(y, 1))))
        )
        return x + self.norm(self.project(y * scale))


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.blocks = nn.Sequential(InvertedResidual(6, 12), InvertedResidual(6, 12))
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class UNet(nn.Module):
    """A skip connection that outlives everything between its ends."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(1, 4, 3, padding=1)
        self.down2 = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.join = nn.Conv2d(8, 4, 3, padding=1)
        self.head = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        skip = torch.relu(self.down1(x))
        up = torch.relu(self.up(torch.relu(self.down2(skip))))
        return self.head(torch.relu(self.join(torch.cat([skip, up], 1))).mean((2, 3)))


class TiedWeights(nn.Module):
    """The embedding is the head, and one layer is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.body = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens).mean(1)
        x = x + torch.relu(self.body(x))
        x = self.norm(x + torch.relu(self.body(x)))
        return self.head(x)


class Functional(nn.Module):
    """Weights that no module owns, read by functions, one of them through a view."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(10, 6))
        self.second = nn.Parameter(torch.randn(5, 10))
        self.scale = nn.Parameter(torch.randn(10, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.addmm(self.scale.view(10), x, self.first.t())
        left, right = x[:, :5], x[:, 5:]
        x = torch.cat([left.relu_(), right], dim=1)
        return functional.linear(x, self.second)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(6, 8)
        self.right = nn.Linear(4, 8)
        self.gate = nn.Bilinear(8, 8, 5)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        left, right = self.left(a), self.right(b).sigmoid_()
        return self.gate(left, right), left


class Attention(nn.Module):
    """Self-attention and a recurrent layer over a short sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(5, 8, batch_first=True)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.recurrent(x)[0]
        q, k, v = self.qkv(x).split(8, dim=-1)
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v))
        return self.head(x[:, -1])


@dataclass(frozen=True)
class Architecture:
    name: str
    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    classes: int
    vocabulary: int | None = None

    def model(self, fixed_batch: int | None = None) -> TracedModel:
        torch.manual_seed(len(self.name))
        dtype = torch.int64 if self.vocabulary else torch.float32
        dtypes = (dtype,) * len(self.shapes)
        return trace(randomise_norms(self.build()), *dtypes, fixed_batch=fixed_batch)

    def split(self, samples: int) -> Split:
        split = make_split(self.shapes, samples, self.classes, seed=3, vocabulary=self.vocabulary)
        return split.cast([torch.int64]) if self.vocabulary else split


ARCHITECTURES = [
    Architecture("plain-cnn", plain_cnn, ((1, 8, 8),), 10),
    Architecture("perceptron", perceptron, ((12,),), 5),
    Architecture("resnet", resnet, ((3, 8, 8),), 7),
    Architecture("mobilenet", MobileNet, ((3, 8, 8),), 5),
    Architecture("u-net", UNet, ((1, 8, 8),), 6),
    Architecture("tied-weights", TiedWeights, ((4,),), 11, vocabulary=11),
    Architecture("functional", Functional, ((6,),), 5),
    Architecture("two-inputs", TwoInputs, ((6,), (4,)), 5),
    Architecture("attention", Attention, ((3, 5),), 4),
]
BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}
