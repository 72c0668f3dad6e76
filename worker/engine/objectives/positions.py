"""One class for each position of a sample: taggers, segmentation, the next token."""

from __future__ import annotations

from collections.abc import Sequence
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
    MOST_CLASSES,
    UNDECIDED,
    ByClass,
    Evaluation,
    Judged,
    class_dtype,
    first_tensor,
    room,
)
from worker.engine.objectives.counting import (
    TOP,
    Ratios,
    classes_of,
    comparable,
    defined,
    log_softmax,
    macro_f1,
    top_hits,
)
from worker.engine.objectives.divergence import (
    Divergence,
    Reference,
    divergences,
    reference_of_classes,
)
from worker.engine.objectives.states import RowSums, State

_CHUNK, _TOGETHER = 2**16, 2**18


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
        return 8 * (16 + (3 * self.classes if self.kind is Kind.PER_POSITION else 0))

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

    def restore(self, states: Sequence[State]) -> PositionTally:
        return self.tally(len(states)).resumed(states)

    def reference(self, outputs: Tensor, labels: Tensor) -> Reference:
        flat = outputs.reshape(-1, self.classes)
        kept = labels.reshape(-1) != IGNORED
        return reference_of_classes(flat if bool(kept.all()) else flat[kept])

    def counts(self, labels: Tensor) -> np.ndarray:
        return np.count_nonzero(labels.numpy().reshape(len(labels), -1) != IGNORED, axis=1)

    def answers(self, samples: int) -> np.ndarray:
        return room((samples, *self.shape), class_dtype(self.classes))


class PositionTally(RowSums):
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
        self._unpaired = np.zeros(rows, dtype=bool)
        self._loss, self._right = Ratios(rows), Ratios(rows)
        words = objective.kind is Kind.LANGUAGE_MODELLING
        self._top = Ratios(rows) if words and classes >= TOP else None
        per_class = 0 if words else classes
        self._said = np.zeros((rows, 2, per_class), dtype=np.int64)
        self._support = np.zeros((rows, per_class), dtype=np.int64)
        self._divergence = Divergence(rows)
        self._scores: list[float | None] | None = None

    def sums(self) -> dict[str, np.ndarray]:
        named = {
            "samples": self._samples,
            "changes": self._changes.T,
            "unpaired": self._unpaired,
            "said": self._said,
            "support": self._support,
        }
        named |= self._loss.sums("loss") | self._right.sums("right") | self._divergence.sums()
        return named if self._top is None else named | self._top.sums("top")

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
        rows, batch = outputs.shape[:2]
        self._scores = None
        targets = labels.reshape(-1)
        truth, places = targets.numpy(), len(targets)
        kept = truth != IGNORED
        counts = np.count_nonzero(kept.reshape(batch, -1), axis=1)
        every = slice(first, first + rows)
        if self._support.size:
            self._support[every] += np.bincount(truth[kept], minlength=self._support.shape[1])
        self._samples[every] += batch
        if dense is None:
            self._unpaired[every] = True
        was = None if dense is None else dense.reshape(-1)
        marks = targets.clamp(min=0)
        predicted = np.empty((rows, places), dtype=self._dtype)
        every_right = np.empty((rows, places), dtype=bool)
        losses = np.empty((rows, batch))
        apart = None if reference is None else np.empty((rows, batch))
        judged = None if kept.all() else torch.from_numpy(np.flatnonzero(kept))
        # As many rows as are cheap to keep: what is the same for all of them is done once.
        step = max(1, _TOGETHER // max(1, places))
        for at in range(0, rows, step):
            some = outputs[at : at + step]
            own = slice(first + at, first + at + len(some))
            said = self._classes(some)
            predicted[at : at + step] = said
            right = every_right[at : at + step]
            np.logical_and(said == truth, kept, out=right)
            found = self._judge(some, marks, right, judged, reference)
            each = (len(some), batch, -1)
            with np.errstate(all="ignore"):
                losses[at : at + step] = found.losses.reshape(each).sum(axis=2)
                if apart is not None and found.divergences is not None:
                    apart[at : at + step] = found.divergences.reshape(each).sum(axis=2)
            self._loss.add(own, losses[at : at + step], counts)
            self._right.add(own, _true(right.reshape(each)), counts)
            if self._top is not None and found.hits is not None:
                self._top.add(own, _true(found.hits.reshape(each)), counts)
            if self._support.size:
                self._count_said(said, right, kept, own)
            if was is not None:
                was_right = (was == truth) & kept
                changes = ((said != was) & kept, was_right & ~right, right & ~was_right)
                for turn, changed in enumerate(changes):
                    self._changes[turn, own] += np.count_nonzero(changed, axis=1)
        self._divergence.add(every, apart)
        shape = (rows, *labels.shape)
        return Judged(predicted.reshape(shape), every_right.reshape(shape), losses, apart)

    def _count_said(
        self, said: np.ndarray, right: np.ndarray, kept: np.ndarray, own: slice
    ) -> None:
        """Count the answers [rows, places] by class, wrong and right ones."""
        rows, width = len(said), self._support.shape[1]
        place = said + right * width + np.arange(0, 2 * rows * width, 2 * width)[:, None]
        counted = np.bincount(place[kept & (said != UNDECIDED)], minlength=2 * rows * width)
        self._said[own] += counted.reshape(rows, 2, width)

    def _classes(self, outputs: Tensor) -> np.ndarray:
        """The class of each position [rows, batch * positions]."""
        rows, width = len(outputs), outputs.shape[-1]
        flat = outputs.reshape(-1, width)
        said = np.empty(len(flat), dtype=self._dtype)
        step = max(1, _CHUNK // width)
        for start in range(0, len(flat), step):
            values = comparable(flat[start : start + step]).numpy()
            said[start : start + step] = classes_of(values)
        return said.reshape(rows, -1)

    def _judge(
        self,
        outputs: Tensor,
        marks: Tensor,
        right: np.ndarray,
        judged: Tensor | None,
        reference: Reference | None,
    ) -> _Places:
        """What is found at the positions `judged` (None: all of them), row by row."""
        rows, width = len(outputs), outputs.shape[-1]
        flat, goals, at_top = outputs.reshape(-1, width), marks.repeat(rows), right.reshape(-1)
        places = None
        if judged is not None:
            starts = torch.arange(0, right.size, right.shape[1])[:, None]
            places = (starts + judged).reshape(-1)
            goals, at_top = goals[places], at_top[places.numpy()]
        losses = np.empty(len(goals))
        hits = None if self._top is None else np.empty(len(goals), dtype=bool)
        apart = None if reference is None else np.empty(len(goals))
        step = max(1, _CHUNK // width)
        for start in range(0, len(goals), step):
            own = slice(start, start + step)
            some = flat[own] if places is None else flat.index_select(0, places[own])
            logs = log_softmax(some)
            losses[own] = logs.gather(1, goals[own, None]).squeeze(1).numpy()
            if apart is not None and reference is not None:
                apart[own] = divergences(reference.part(start, len(some)), logs.numpy())
            if hits is not None:
                values = comparable(some).numpy()
                spoilt = None
                if not np.isfinite(losses[own]).all():
                    spoilt = np.asarray(np.isnan(values).any(axis=1))
                hits[own] = top_hits(values, goals[own].numpy(), at_top[own], spoilt)
        np.negative(losses, out=losses)
        return _Places(
            _among(losses, right, places),
            None if hits is None else _among(hits, right, places),
            None if apart is None else _among(apart, right, places),
        )

    def evaluation(self, row: int) -> Evaluation:
        samples = int(self._samples[row])
        answers = int(self._right.bottom[row])
        correct = int(self._right.top[row])
        loss = Mean(self._loss.value(row), self._loss.error(row), 0.0)
        flips, lost, gained = (int(count) for count in self._changes[:, row])
        accuracy = self._share(self._right, row)
        paired = not self._unpaired[row]
        by_class = None
        estimates: dict[str, Estimate] = {"accuracy": accuracy, "loss": loss}
        if self._objective.kind is Kind.LANGUAGE_MODELLING:
            top5 = UNDEFINED if self._top is None else self._share(self._top, row)
            estimates |= {"perplexity": Exponential(loss), "top5": top5}
        else:
            if self._scores is None:
                wrong, right = self._said[:, 0], self._said[:, 1]
                self._scores = defined(macro_f1(right, right + wrong, self._support))
            estimates["macro_f1"] = Known(self._scores[row])
            if self._objective.classes <= MOST_CLASSES:
                by_class = ByClass(self._support[row].copy(), self._said[row, 1].copy())
        return Evaluation(
            samples=samples,
            correct=correct,
            loss=loss.value,
            flips=flips if paired else None,
            lost=lost if paired else None,
            gained=gained if paired else None,
            answers=answers,
            kind=self._objective.kind,
            estimates=estimates,
            kl=self._divergence.mean(row, answers),
            by_class=by_class,
        )

    def _share(self, ratios: Ratios, row: int) -> ClusteredShare:
        return ClusteredShare(
            int(ratios.top[row]),
            int(ratios.bottom[row]),
            int(ratios.clusters[row]),
            ratios.error(row),
        )


@dataclass(frozen=True)
class _Places:
    """Losses and divergences (float64) and top-5 hits [rows, batch * positions].

    0 and no hit at positions that aren't judged.
    """

    losses: np.ndarray
    hits: np.ndarray | None
    divergences: np.ndarray | None


def _true(found: np.ndarray) -> np.ndarray:
    """How many are true along the last axis."""
    return np.count_nonzero(found, axis=-1)


def _among(found: np.ndarray, whole: np.ndarray, places: Tensor | None) -> np.ndarray:
    """What was found at some of all places (None: at all), in the shape of `whole`."""
    if places is None:
        return found.reshape(whole.shape)
    every = np.zeros(whole.shape, dtype=found.dtype)
    every.reshape(-1)[places.numpy()] = found
    return every
