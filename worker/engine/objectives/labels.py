"""Any number of yes/no labels a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from app.domain.errors import InputMismatch
from app.domain.estimates import ClusteredShare, Known, Mean, Share
from app.domain.metrics import Kind
from worker.engine.objectives.areas import BINS, MOST_SCORES, Histograms
from worker.engine.objectives.base import UNDECIDED, Evaluation, Judged, first_tensor, room
from worker.engine.objectives.counting import Ratios, defined
from worker.engine.objectives.divergence import (
    Divergence,
    Reference,
    divergences_of_labels,
    reference_of_labels,
)
from worker.engine.objectives.states import RowSums, State

_CLOSEST = 1e-7


@dataclass(frozen=True)
class MultiLabel:
    """One logit a label [batch, labels] against zeros and ones; binary cross-entropy.

    Yes when the logit is above 0 (the probability above one half). `probabilities`: the network
    ends in a sigmoid, whose outputs are turned back into logits, at least 1e-7 from 0 and 1.
    """

    labels: int
    probabilities: bool = False
    kind: Kind = Kind.MULTI_LABEL
    steepness: float = 1.0

    @property
    def row_bytes(self) -> int:
        bins = BINS if self.labels <= MOST_SCORES else 0
        return 8 * (16 + self.labels * (3 + bins))

    def outputs(self, output: Any, labels: Tensor) -> Tensor:
        found = first_tensor(output)
        count = labels.shape[0]
        if found is None or tuple(found.shape[1:]) != (self.labels,) or found.shape[0] < count:
            shape = "no tensor" if found is None else f"shape {tuple(found.shape)}"
            raise InputMismatch(
                f"The model's output has {shape}; (batch, {self.labels}) was expected.",
                "Export the network so that its first output is one logit for each label.",
            )
        found = found[:count]
        return torch.logit(found, _CLOSEST) if self.probabilities else found

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(outputs.float(), labels.float())

    def tally(self, rows: int) -> LabelTally:
        return LabelTally(rows, self.labels)

    def restore(self, states: Sequence[State]) -> LabelTally:
        return self.tally(len(states)).resumed(states)

    def reference(self, outputs: Tensor, labels: Tensor) -> Reference:
        return reference_of_labels(outputs, labels)

    def counts(self, labels: Tensor) -> np.ndarray:
        return np.full(len(labels), self.labels, dtype=np.int64)

    def answers(self, samples: int) -> np.ndarray:
        return room((samples, self.labels), np.int8)


class LabelTally(RowSums):
    """Sums over samples and labels; the tally of MultiLabel.

    A share of labels has an interval by the ratio estimator over samples, since the labels of one
    sample are no independent draws; "all labels right" has Wilson's. Macro F1 and AUROC have none.
    Macro F1 is torchmetrics' MultilabelF1Score: a label that is never there and never said counts
    as 0.
    """

    def __init__(self, rows: int, labels: int) -> None:
        self._labels = labels
        self._samples = np.zeros(rows, dtype=np.int64)
        self._loss, self._right = Ratios(rows), Ratios(rows)
        self._exact = np.zeros(rows, dtype=np.int64)
        self._changes = np.zeros((3, rows), dtype=np.int64)
        self._unpaired = np.zeros(rows, dtype=bool)
        self._undecided = np.zeros(rows, dtype=bool)
        self._said = np.zeros((rows, 2, labels), dtype=np.int64)
        self._support = np.zeros((rows, labels), dtype=np.int64)
        self._scores = Histograms(rows, labels) if labels <= MOST_SCORES else None
        self._divergence = Divergence(rows)
        self._areas: list[float | None] | None = None

    def sums(self) -> dict[str, np.ndarray]:
        named = {
            "samples": self._samples,
            "exact": self._exact,
            "changes": self._changes.T,
            "unpaired": self._unpaired,
            "undecided": self._undecided,
            "said": self._said,
            "support": self._support,
        }
        named |= self._loss.sums("loss") | self._right.sums("right") | self._divergence.sums()
        return named if self._scores is None else named | self._scores.sums()

    def add(
        self, outputs: Tensor, labels: Tensor, dense: np.ndarray | None, first: int = 0
    ) -> np.ndarray:
        return self.judge(outputs, labels, dense, first).answers

    def judge(
        self,
        outputs: Tensor,
        labels: Tensor,
        dense: np.ndarray | None,
        first: int = 0,
        reference: Reference | None = None,
    ) -> Judged:
        rows, batch, width = outputs.shape
        own = slice(first, first + rows)
        self._areas = None
        goals = labels.double().expand(rows, batch, width)
        values = outputs.double()
        losses = functional.binary_cross_entropy_with_logits(values, goals, reduction="none")
        said = (outputs > 0).to(torch.int8)
        undecided = outputs.isnan()
        if bool(undecided.any()):
            said[undecided] = UNDECIDED
            self._undecided[own] |= undecided.numpy().any(axis=(1, 2))
        predicted = said.numpy()
        truth = labels.numpy().astype(np.int8)
        right = predicted == truth
        counts = np.full(batch, width, dtype=np.int64)
        with np.errstate(all="ignore"):
            summed = losses.numpy().sum(axis=2)
        self._loss.add(own, summed, counts)
        each = right.sum(axis=2)
        self._right.add(own, each, counts)
        self._exact[own] += (each == width).sum(axis=1)
        self._samples[own] += batch
        self._said[own, 0] += (predicted == 1).sum(axis=1)
        self._said[own, 1] += (right & (truth == 1)).sum(axis=1)
        self._support[own] += truth.sum(axis=0, dtype=np.int64)
        if dense is None:
            self._unpaired[own] = True
        else:
            was_right = dense == truth
            self._changes[0, own] += (predicted != dense).sum(axis=(1, 2))
            self._changes[1, own] += (was_right & ~right).sum(axis=(1, 2))
            self._changes[2, own] += (right & ~was_right).sum(axis=(1, 2))
        if self._scores is not None:
            self._scores.add(functional.logsigmoid(values), labels > 0.5, first)
        apart = (
            None if reference is None else divergences_of_labels(reference, summed, values, labels)
        )
        self._divergence.add(own, apart)
        return Judged(predicted, right, summed, apart)

    def evaluation(self, row: int) -> Evaluation:
        samples = int(self._samples[row])
        answers, correct = int(self._right.bottom[row]), int(self._right.top[row])
        flips, lost, gained = (int(count) for count in self._changes[:, row])
        said, right = self._said[row]
        whole = said + self._support[row]
        f1 = float((2 * right / np.maximum(whole, 1)).mean())
        loss = Mean(self._loss.value(row), self._loss.error(row), 0.0)
        paired = not self._unpaired[row]
        return Evaluation(
            samples=samples,
            correct=correct,
            loss=loss.value,
            flips=flips if paired else None,
            lost=lost if paired else None,
            gained=gained if paired else None,
            answers=answers,
            kind=Kind.MULTI_LABEL,
            estimates={
                "accuracy": ClusteredShare(correct, answers, samples, self._right.error(row)),
                "exact_match": Share(int(self._exact[row]), samples),
                "macro_f1": Known(f1),
                "auroc": Known(self._area(row)),
                "loss": loss,
            },
            kl=self._divergence.mean(row, answers),
        )

    def _area(self, row: int) -> float | None:
        if self._scores is None:
            return None
        if self._areas is None:
            # Of all rows at once, in far less time than one by one.
            found = np.where(self._undecided, np.nan, self._scores.mean_areas())
            self._areas = defined(found)
        return self._areas[row]
