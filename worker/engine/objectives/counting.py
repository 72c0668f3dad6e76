"""Counts that several kinds share: hits among the best five, F1, ratios over samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.domain.estimates import ratio_error
from worker.engine.objectives.base import UNDECIDED

TOP = 5
_SHORT = 48


class Ratios:
    """sum(y) / sum(m) over samples with y and m each, for several networks (rows)."""

    def __init__(self, rows: int) -> None:
        self.top = np.zeros(rows)
        self.bottom = np.zeros(rows)
        self.clusters = np.zeros(rows, dtype=np.int64)
        self._products = np.zeros((3, rows))

    def add(self, row: Any, top: np.ndarray, bottom: np.ndarray) -> None:
        """Add samples of one row (y and m [batch]) or of a slice of rows (y [rows, batch])."""
        with np.errstate(all="ignore"):
            self.top[row] += top.sum(axis=-1)
            self._products[0, row] += (top * top).sum(axis=-1)
            self._products[1, row] += (top * bottom).sum(axis=-1)
        self.bottom[row] += bottom.sum()
        self._products[2, row] += (bottom * bottom).sum()
        self.clusters[row] += np.count_nonzero(bottom)

    def sums(self, name: str) -> dict[str, np.ndarray]:
        """All sums as views, the rows first, their names beginning with `name`."""
        return {
            f"{name}_top": self.top,
            f"{name}_bottom": self.bottom,
            f"{name}_clusters": self.clusters,
            f"{name}_products": self._products.T,
        }

    def value(self, row: int) -> float | None:
        """The ratio; None when it is undefined or not finite."""
        if not self.bottom[row]:
            return None
        found = float(self.top[row]) / float(self.bottom[row])
        return found if math.isfinite(found) else None

    def error(self, row: int) -> float | None:
        """Its standard error, samples being independent."""
        squares, cross, squared = (float(each) for each in self._products[:, row])
        return ratio_error(
            float(self.top[row]),
            float(self.bottom[row]),
            squares,
            cross,
            squared,
            int(self.clusters[row]),
        )


def log_softmax(outputs: Tensor) -> Tensor:
    """torch.log_softmax of outputs [n, classes] in float64.

    Along the last axis, although the first is faster for few classes: there torch computes the last
    samples of a batch by other instructions, and their last bits depend on the samples beside them.
    """
    return torch.log_softmax(outputs.double(), 1)


def comparable(outputs: Tensor) -> Tensor:
    """Outputs in a type that numpy has too, with their order."""
    return outputs if outputs.dtype in (torch.float32, torch.float64) else outputs.float()


def classes_of(values: np.ndarray) -> np.ndarray:
    """The class of each row of `values` [n, classes]: the first of the highest; int64 [n].

    UNDECIDED where one of them is NaN.
    """
    width = values.shape[1]
    if width <= _SHORT:
        # numpy's argmax of short rows mispredicts its branches; this has none.
        columns = np.ascontiguousarray(values.T)
        with np.errstate(invalid="ignore"):
            highest = columns == columns.max(axis=0)
        behind = np.arange(width, 0, -1, dtype=np.uint8)[:, None]
        # NaN equals nothing, so that it's as far behind as there are classes.
        found = width - (highest.view(np.uint8) * behind).max(axis=0).astype(np.int64)
        spoilt = found == width
    else:
        found = values.argmax(axis=1)
        # NaN is the greatest.
        spoilt = np.isnan(values[np.arange(len(values)), found])
    found[spoilt] = UNDECIDED
    return found


def top_hits(
    values: np.ndarray,
    targets: np.ndarray,
    right: np.ndarray,
    undecided: np.ndarray | None = None,
    size: int = TOP,
) -> np.ndarray:
    """Is the target [n] among the `size` highest of its row of `values` [n, classes]? bool [n].

    Of equal values the first ones are higher, as argmax has it. `right` rows [n] have the target
    highest, `undecided` ones are no hits.
    """
    if values.shape[1] <= _SHORT:
        columns = np.ascontiguousarray(values.T)
        marks = columns[targets, np.arange(len(values))]
        hits = _true(columns >= marks) <= size
        unsure = ~hits & (_true(columns > marks) < size)
    else:
        marks = values[np.arange(len(values)), targets][:, None]
        near = np.flatnonzero(~right)
        if 2 * len(near) > len(values):
            # Comparing all of them is cheaper than copying most of them.
            near = np.flatnonzero(~right & (_counts(values > marks) < size))
        else:
            near = near[_counts(values[near] > marks[near]) < size]
        hits = np.zeros(len(values), dtype=bool)
        hits[near] = _counts(values[near] >= marks[near]) <= size
        unsure = np.zeros(len(values), dtype=bool)
        unsure[near] = ~hits[near]
    hits |= right
    unsure &= ~right
    if undecided is not None:
        hits &= ~undecided
        unsure &= ~undecided
    rest = np.flatnonzero(unsure)
    if len(rest):
        # Values equal to the target's count only when they stand before it.
        some, goals = values[rest], targets[rest, None]
        mark = np.take_along_axis(some, goals, axis=1)
        earlier = np.arange(values.shape[1]) < goals
        hits[rest] = _counts((some > mark) | ((some == mark) & earlier)) < size
    return hits


def _true(found: np.ndarray) -> np.ndarray:
    """How many are true in each column, at most 255 (uint8)."""
    return found.view(np.uint8).sum(axis=0, dtype=np.uint8)


def _counts(found: np.ndarray) -> np.ndarray:
    """How many are true in each row: a matrix product, the fastest way for short rows."""
    return found.astype(np.float32) @ np.ones(found.shape[1], dtype=np.float32)


def macro_f1(right: np.ndarray, said: np.ndarray, support: np.ndarray) -> np.ndarray:
    """The mean of 2 right / (said + support) over the classes that occur or are said, a row each.

    Counts by class: answers that say it rightly and answers that say it [rows, classes], labels
    that have it [classes]. NaN when there is no such class. (As torchmetrics' MulticlassF1Score
    with average="macro".)
    """
    whole = said + support
    there = np.count_nonzero(whole, axis=1)
    with np.errstate(invalid="ignore"):
        return (2 * right / np.maximum(whole, 1)).sum(axis=1) / there


def defined(values: np.ndarray) -> list[float | None]:
    """Figures [rows] with None for NaN."""
    return [None if math.isnan(value) else value for value in values.tolist()]
