"""One class for each position of a sample: taggers, segmentation, the next token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from app.domain.errors import InputMismatch
from app.domain.estimates import (
    UNDEFINED,
    ClusteredShare,
    Estimate,
    Exponential,
    Known,
    Mean,
)
from app.domain.metrics import Kind
from worker.engine.objectives.base import (
    IGNORED,
    UNDECIDED,
    Evaluation,
    class_dtype,
    first_tensor,
    room,
)
from worker.engine.objectives.counting import TOP, Ratios, comparable, macro_f1, top_hits

_CHUNK = 2**20


@dataclass(frozen=True)
class Positions:
    """Logits with one row of `classes` for each of `shape` positions; labels [batch, *shape].

    `axis`: where the classes are in the network's output, 1 or -1; the outputs judged have them
    last. Cross-entropy over the positions whose label isn't -100. `kind` is per-position or
    language-modelling, where the classes are the vocabulary.
    """

    kind: Kind
    classes: int
    shape: tuple[int, ...]
    axis: int = -1
    steepness: float = 1.0

    @property
    def row_bytes(self) -> int:
        return 8 * (16 + (2 * self.classes if self.kind is Kind.PER_POSITION else 0))

    def outputs(self, output: Any, labels: Tensor) -> Tensor:
        found = first_tensor(output)
        wanted = (self.classes, *self.shape) if self.axis == 1 else (*self.shape, self.classes)
        count = labels.shape[0]
        if found is None or tuple(found.shape[1:]) != wanted or found.shape[0] < count:
            shape = "no tensor" if found is None else f"shape {tuple(found.shape)}"
            raise InputMismatch(
                f"The model's output has {shape}; (batch, {', '.join(map(str, wanted))}) was "
                "expected.",
                "The output must have one shape for all samples of a split.",
            )
        return found[:count].movedim(self.axis, -1)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        summed = functional.cross_entropy(
            outputs.float().reshape(-1, self.classes),
            labels.reshape(-1),
            ignore_index=IGNORED,
            reduction="sum",
        )
        return summed / max(1, int((labels != IGNORED).sum()))

    def tally(self, rows: int) -> PositionTally:
        return PositionTally(rows, self)

    def answers(self, samples: int) -> np.ndarray:
        return room((samples, *self.shape), class_dtype(self.classes))


class PositionTally:
    """Sums over samples of sums over their positions; the tally of Positions.

    Accuracies, loss and perplexity have intervals by the ratio estimator over samples, since the
    positions of one sample are no independent draws. Macro F1 has none.
    """

    def __init__(self, rows: int, objective: Positions) -> None:
        self._objective = objective
        classes = objective.classes
        self._dtype = class_dtype(classes)
        self._samples = np.zeros(rows, dtype=np.int64)
        self._changes = np.zeros((3, rows), dtype=np.int64)
        self._paired = True
        self._loss, self._right = Ratios(rows), Ratios(rows)
        words = objective.kind is Kind.LANGUAGE_MODELLING
        self._top = Ratios(rows) if words and classes >= TOP else None
        per_class = 0 if words else classes
        self._said = np.zeros((rows, 2, per_class), dtype=np.int64)
        self._support = np.zeros(per_class, dtype=np.int64)

    def add(
        self, outputs: Tensor, labels: Tensor, dense: np.ndarray | None, first: int = 0
    ) -> np.ndarray:
        rows, batch = outputs.shape[:2]
        targets = labels.reshape(-1)
        kept = (targets != IGNORED).numpy()
        counts = kept.reshape(batch, -1).sum(axis=1)
        truth = targets.numpy()
        if first == 0 and self._support.size:
            self._support += np.bincount(truth[kept], minlength=len(self._support))
        self._paired &= dense is not None
        was = None if dense is None else dense.reshape(-1)
        predicted = np.empty((rows, len(truth)), dtype=self._dtype)
        # One row after the other: memory stays bounded, and no figure depends on the neighbours.
        for at in range(rows):
            row = first + at
            losses, said, hits = self._judge(outputs[at], targets)
            right = (said == truth) & kept
            losses[~kept] = 0.0
            self._samples[row] += batch
            self._loss.add(row, losses.reshape(batch, -1).sum(axis=1), counts)
            self._right.add(row, right.reshape(batch, -1).sum(axis=1), counts)
            if self._top is not None and hits is not None:
                self._top.add(row, (hits & kept).reshape(batch, -1).sum(axis=1), counts)
            if self._support.size:
                width = len(self._support)
                self._said[row, 1] += np.bincount(said[right], minlength=width)
                clear = kept & ~right & (said != UNDECIDED)
                self._said[row, 0] += np.bincount(said[clear], minlength=width)
            if was is not None:
                was_right = (was == truth) & kept
                self._changes[0, row] += np.count_nonzero((said != was) & kept)
                self._changes[1, row] += np.count_nonzero(was_right & ~right)
                self._changes[2, row] += np.count_nonzero(right & ~was_right)
            predicted[at] = said
        return predicted.reshape(rows, *labels.shape)

    def _judge(
        self, outputs: Tensor, targets: Tensor
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Losses (float64), classes and top-5 hits of each position [batch * positions]."""
        width = outputs.shape[-1]
        flat = outputs.reshape(-1, width)
        losses = np.empty(len(flat))
        said = np.empty(len(flat), dtype=self._dtype)
        hits = None if self._top is None else np.empty(len(flat), dtype=bool)
        step = max(1, _CHUNK // width)
        for start in range(0, len(flat), step):
            own = slice(start, start + step)
            marks = targets[own, None].clamp(min=0)
            logs = torch.log_softmax(flat[own].double(), 1)
            losses[own] = logs.gather(1, marks).neg_().squeeze(1).numpy()
            values = comparable(flat[own]).numpy()
            said[own] = values.argmax(1)
            undecided: np.ndarray | None = None
            if not np.isfinite(losses[own]).all():
                undecided = np.asarray(np.isnan(values).any(axis=1))
                said[own][undecided] = UNDECIDED
            if hits is not None:
                goals = marks[:, 0].numpy()
                hits[own] = top_hits(values, goals, said[own] == goals, undecided)
        return losses, said, hits

    def evaluation(self, row: int) -> Evaluation:
        samples = int(self._samples[row])
        answers = int(self._right.bottom[row])
        correct = int(self._right.top[row])
        loss = Mean(self._loss.value(row), self._loss.error(row), 0.0)
        flips, lost, gained = (int(count) for count in self._changes[:, row])
        accuracy = self._share(self._right, row)
        estimates: dict[str, Estimate] = {"accuracy": accuracy, "loss": loss}
        if self._objective.kind is Kind.LANGUAGE_MODELLING:
            top5 = UNDEFINED if self._top is None else self._share(self._top, row)
            estimates |= {"perplexity": Exponential(loss), "top5": top5}
        else:
            wrong, right = self._said[row]
            estimates["macro_f1"] = Known(macro_f1(right, right + wrong, self._support))
        return Evaluation(
            samples=samples,
            correct=correct,
            loss=loss.value,
            flips=flips if self._paired else None,
            lost=lost if self._paired else None,
            gained=gained if self._paired else None,
            answers=answers,
            kind=self._objective.kind,
            estimates=estimates,
        )

    def _share(self, ratios: Ratios, row: int) -> ClusteredShare:
        return ClusteredShare(
            int(ratios.top[row]),
            int(ratios.bottom[row]),
            int(ratios.clusters[row]),
            ratios.error(row),
        )
