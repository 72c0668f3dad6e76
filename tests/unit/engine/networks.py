"""Small networks, brought to the canonical form by the way every upload takes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from worker.engine.formats.pt2 import load_model
from worker.engine.graph import CanonicalModel


def canonical(
    module: nn.Module, example: tuple[Tensor, ...], folder: Path, *, fixed: bool = False
) -> CanonicalModel:
    """Exports `module` (batch axis free unless `fixed`), writes the file and reads it."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    shapes = None if fixed else tuple({0: batch} for _ in example)
    program = torch.export.export(module.eval(), example, dynamic_shapes=shapes)
    path = folder / "model.pt2"
    torch.export.save(program, path)
    return load_model(path, "pt2")


def conv_net(seed: int = 0, dropout: float = 0.0) -> nn.Sequential:
    """Conv, batch norm, linear for 8 x 8 digits; 2,522 parameters."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, stride=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


class Tied(nn.Module):
    """Token ids in, one tensor under two names, a buffer of another type."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embedding = nn.Embedding(12, 6)
        self.body = nn.Linear(6, 6)
        self.head = nn.Linear(6, 12, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("calls", torch.tensor(3))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(self.embedding(tokens).mean(1)))) + 0 * self.calls


class FixedBatch(nn.Module):
    """Runs with `batch` samples and no other number: a buffer has one row for each of them."""

    def __init__(self, inputs: int, classes: int, batch: int) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.head = nn.Linear(inputs, classes)
        self.register_buffer("offset", torch.zeros(batch, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1)) + self.offset
