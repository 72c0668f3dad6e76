"""Networks that strangers bring, by family. Each is small, random and in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BATCH = 3
Made = tuple[nn.Module, tuple[Tensor, ...]]


@dataclass(frozen=True)
class Family:
    """`networks` by name; `register` adds one, with seeded weights and filled statistics."""

    networks: dict[str, Callable[[], Made]]

    def register(self, make: Callable[[], Made]) -> Callable[[], Made]:
        def seeded() -> Made:
            torch.manual_seed(0)
            net, inputs = make()
            with torch.no_grad():
                for name, buffer in net.named_buffers():
                    if name.endswith("running_mean"):
                        buffer.normal_(0, 0.3)
                    elif name.endswith("running_var"):
                        buffer.uniform_(0.5, 1.5)
            return net.eval(), inputs

        self.networks[make.__name__] = seeded
        return seeded


class Head(nn.Module):
    """`body`, then the mean over all axes between the first and the last, then a linear layer.

    Where the body returns several values, the first counts.
    """

    def __init__(self, body: nn.Module, width: int, classes: int = 4) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        if isinstance(x, tuple):
            x = x[0]
        return self.head(x.flatten(1, -2).mean(1) if x.dim() > 2 else x)
