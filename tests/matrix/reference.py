"""The naive loop for every task: the whole network on every sample, judged one answer at a time.

Single labels are judged by the unit tests' own naive loop; the other tasks are spelled out here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tests.unit.engine import naive
from worker.engine.formats.splits import Split
from worker.engine.graph import CanonicalModel

IGNORED = -100
Answers = tuple[list[float], list[int], list[int]]


@dataclass(frozen=True)
class Figures:
    """What is compared. The loss of single labels to the last bit, of other tasks to 12 digits:
    there the order of adding up is nobody's business."""

    samples: int
    correct: int | None
    flips: int | None
    lost: int | None
    gained: int | None
    loss: float | None
    exact: bool = field(default=True, compare=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Figures):
            return NotImplemented
        if self.counts != other.counts or (self.loss is None) != (other.loss is None):
            return False
        if self.loss is None or other.loss is None or (self.exact and other.exact):
            return self.loss == other.loss
        return bool(np.isclose(self.loss, other.loss, rtol=1e-12, atol=0))

    @property
    def counts(self) -> tuple[int | None, ...]:
        return self.samples, self.correct, self.flips, self.lost, self.gained


def figures_of(found: Any) -> Figures:
    """An Evaluation of the engine, or the unit tests' own figures."""
    counts = (found.samples, found.correct, found.flips, found.lost, found.gained)
    return Figures(*counts, loss=found.loss)


class Reference:
    """The figures of a network as it stands, on a split, paired with those when this was made."""

    def __init__(self, model: CanonicalModel, split: Split, batch: int, task: str) -> None:
        self.model, self.split, self.batch, self.task = model, split, batch, task
        if task == "single-label":
            _, _, self.classes = naive.predict(model, split, batch)
        else:
            _, self.classes, _ = self.answers()
        self.dense = self.figures()

    def figures(self) -> Figures:
        if self.task == "single-label":
            return figures_of(naive.figures(self.model, self.split, self.batch, self.classes))
        losses, classes, labels = self.answers()
        loss = float(np.mean(np.array(losses, dtype=np.float64)))
        samples = len(self.split)
        if self.task == "regression":
            return Figures(samples, None, None, None, None, loss, exact=False)
        triples = list(zip(labels, self.classes, classes, strict=True))
        return Figures(
            samples,
            correct=sum(label == now for label, _, now in triples),
            flips=sum(dense != now for _, dense, now in triples),
            lost=sum(dense == label != now for label, dense, now in triples),
            gained=sum(dense != label == now for label, dense, now in triples),
            loss=loss,
            exact=False,
        )

    def answers(self) -> Answers:
        """Loss, class and label of each answer that is judged."""
        losses: list[float] = []
        classes: list[int] = []
        truth: list[int] = []
        for start in range(0, len(self.split), self.batch):
            inputs, labels = self.split.batch(start, min(start + self.batch, len(self.split)))
            with torch.no_grad():
                output = self.model.module(*[x.clone() for x in inputs])
            if self.task == "regression":
                for row, label in zip(output, labels, strict=True):
                    losses.append(float(((row.double() - label.double()) ** 2).mean()))
                continue
            if self.task == "multi-label":
                for score, label in zip(output.flatten(), labels.flatten().tolist(), strict=True):
                    goal = torch.tensor(label).double()
                    lost = functional.binary_cross_entropy_with_logits(score.double(), goal)
                    losses.append(float(lost))
                    classes.append(int(score > 0))
                    truth.append(int(label))
                continue
            for row, label in zip(by_place(output, labels), labels.flatten().tolist(), strict=True):
                if label != IGNORED:
                    goal = torch.tensor([label])
                    losses.append(float(functional.cross_entropy(row.double()[None], goal)))
                    classes.append(int(row.argmax()))
                    truth.append(label)
        return losses, classes, truth


def by_place(output: Tensor, labels: Tensor) -> Tensor:
    """Scores [places of all samples, classes], wherever the network has its classes."""
    if output.shape[:-1] != labels.shape:
        output = output.movedim(1, -1)
    return output.reshape(-1, output.shape[-1])
