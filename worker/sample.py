"""The sample: a small convolutional network with batch norm, trained on real digits in seconds."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

EPOCHS = 12
BATCH = 64
LEAST_TUNE_ACCURACY = 0.97


class ConvNorm(nn.Module):
    """A 3x3 convolution and its batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class DigitsNet(nn.Module):
    """A small residual network for images `[batch, 1, 8, 8]`; answers `[batch, 10]`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(1, 16)
        self.block1 = Residual(16)
        self.down = ConvNorm(16, 32, stride=2)
        self.block2 = Residual(32)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block1(torch.relu(self.stem(x)))
        x = self.block2(torch.relu(self.down(x)))
        return self.head(self.dropout(x.mean((2, 3))))


def digits() -> dict[str, np.ndarray]:
    """scikit-learn's 1,797 real 8x8 digits as the contract's arrays, 60/20/20, stratified."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    x, y = bunch.images[:, None].astype(np.uint8), bunch.target.astype(np.int64)
    x_train, x_rest, y_train, y_rest = train_test_split(
        x, y, test_size=0.4, stratify=y, random_state=0
    )
    x_tune, x_test, y_tune, y_test = train_test_split(
        x_rest, y_rest, test_size=0.5, stratify=y_rest, random_state=0
    )
    return {
        "x_train": x_train,
        "y_train": y_train,
        "x_tune": x_tune,
        "y_tune": y_tune,
        "x_test": x_test,
        "y_test": y_test,
        "scale": np.float32(1 / 16),
    }


def train(arrays: dict[str, np.ndarray]) -> tuple[DigitsNet, float]:
    """The same network every time on the same machine, and its accuracy on the tune split."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = DigitsNet()
    x = torch.from_numpy(arrays["x_train"]).float() / 16
    y = torch.from_numpy(arrays["y_train"])
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    net.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            loss = nn.functional.cross_entropy(net(x[chosen]), y[chosen], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    net.eval()
    with torch.inference_mode():
        right = net(torch.from_numpy(arrays["x_tune"]).float() / 16).argmax(1)
    accuracy = (right == torch.from_numpy(arrays["y_tune"])).float().mean().item()
    return net, accuracy
