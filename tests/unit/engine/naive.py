"""The slow reference: set the weights, run the whole network on every sample, put them back.

Shares no code with the engine but the networks and the splits; everything is spelled out. Kept for
good: every exact figure of the engine has to equal this one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Figures:
    samples: int
    correct: int
    loss: float | None
    flips: int
    lost: int
    gained: int


def predict(model: Any, split: Any, batch_size: int) -> tuple[Tensor, list[float], list[int]]:
    """All logits, the per-sample losses and the classes of the network as it stands."""
    model.module.eval()
    rows, losses, classes = [], [], []
    with torch.no_grad():
        for start in range(0, len(split), batch_size):
            inputs, labels = split.batch(start, min(start + batch_size, len(split)))
            count = len(labels)
            if model.fixed_batch is not None:
                inputs = tuple(
                    torch.cat([x] + [x[-1:]] * (model.fixed_batch - count)) for x in inputs
                )
            logits = model.module(*[x.clone() for x in inputs])
            if isinstance(logits, tuple):
                logits = logits[0]
            logits = logits[:count]
            for row, label in zip(logits, labels, strict=True):
                row = row.double()
                losses.append(float(functional.cross_entropy(row[None], label[None])))
                classes.append(-1 if bool(row.isnan().any()) else int(row.argmax()))
            rows.append(logits)
    return torch.cat(rows), losses, classes


def figures(model: Any, split: Any, batch_size: int, dense_classes: Sequence[int]) -> Figures:
    _, losses, classes = predict(model, split, batch_size)
    labels = [int(label) for label in split.batch(0, len(split))[1]]
    triples = list(zip(labels, dense_classes, classes, strict=True))
    # Summed batch by batch, so that the mean can be compared to the last bit.
    sums = [np.sum(losses[at : at + batch_size]) for at in range(0, len(losses), batch_size)]
    mean = float(sum(sums)) / len(losses)
    return Figures(
        samples=len(labels),
        correct=sum(label == now for label, _, now in triples),
        loss=mean if math.isfinite(mean) else None,
        flips=sum(dense != now for _, dense, now in triples),
        lost=sum(dense == label != now for label, dense, now in triples),
        gained=sum(dense != label == now for label, dense, now in triples),
    )


def smallest_removed(weight: Tensor, sparsity: float) -> Tensor:
    """A copy without its round(s * n) smallest entries; equal ones by their place, NaN last."""
    flat = weight.detach().clone().reshape(-1)
    values = [float(value) for value in flat]
    order = sorted(range(len(values)), key=lambda i: (math.isnan(values[i]), abs(values[i]), i))
    for index in order[: round(sparsity * flat.numel())]:
        flat[index] = 0.0
    return flat.reshape(weight.shape)


def parameter(model: Any, key: str) -> Tensor:
    return dict(model.module.named_parameters(remove_duplicate=False))[key]


def curve(
    model: Any, split: Any, key: str, sparsities: Sequence[float], batch_size: int
) -> list[Figures]:
    """The figures of one weight pruned by magnitude, alone, at each sparsity."""
    weight = parameter(model, key)
    original = weight.detach().clone()
    _, _, dense = predict(model, split, batch_size)
    results = []
    for sparsity in sparsities:
        with torch.no_grad():
            weight.copy_(smallest_removed(original, sparsity))
        results.append(figures(model, split, batch_size, dense))
        with torch.no_grad():
            weight.copy_(original)
    return results
