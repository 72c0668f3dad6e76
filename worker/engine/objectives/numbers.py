"""Numbers: one or several a sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from app.domain.errors import InputMismatch
from app.domain.estimates import Known, Mean, mean_error
from app.domain.metrics import Kind
from worker.engine.objectives.base import Evaluation, Judged, first_tensor
from worker.engine.objectives.divergence import Reference
from worker.engine.objectives.states import RowSums, State

MOST_NUMBERS = 1000
"""With more numbers a sample than this there is no R², which needs sums for each of them."""


@dataclass(frozen=True)
class Regression:
    """Outputs and labels of the shape [batch, *shape], a trailing axis of one set aside.

    Mean squared error is loss and metric. `mean` [numbers] are the labels' means over the split,
    which R² compares with; None where they aren't needed. `steepness` is the labels' variance
    where that is above 1: a network that predicts numbers of that size has weights of their size
    behind every layer but the last, and its squared error curves with their square.
    """

    shape: tuple[int, ...]
    mean: np.ndarray | None = field(default=None, compare=False, repr=False)
    steepness: float = field(default=1.0, compare=False)
    kind: Kind = Kind.REGRESSION

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        return 8 * (8 + (2 * self.numbers if self.mean is not None else 0))

    def outputs(self, output: Any, labels: Tensor) -> Tensor:
        found = first_tensor(output)
        count = labels.shape[0]
        if found is None or not _fits(tuple(found.shape[1:]), self.shape) or len(found) < count:
            shape = "no tensor" if found is None else f"shape {tuple(found.shape)}"
            wanted = ", ".join(map(str, ("batch", *self.shape)))
            raise InputMismatch(
                f"The model's output has {shape}; ({wanted}) was expected.",
                "Export the network so that its first output has the labels' shape.",
            )
        return found[:count].reshape(count, -1)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return functional.mse_loss(outputs.float(), labels.float().reshape(outputs.shape))

    def tally(self, rows: int) -> NumberTally:
        return NumberTally(rows, self)

    def restore(self, states: Sequence[State]) -> NumberTally:
        return self.tally(len(states)).resumed(states)

    def reference(self, outputs: Tensor, labels: Tensor) -> Reference:
        return Reference(np.zeros(0))

    def counts(self, labels: Tensor) -> np.ndarray:
        return np.full(len(labels), self.numbers, dtype=np.int64)

    def answers(self, samples: int) -> np.ndarray:
        return np.empty((samples, 0), dtype=np.int8)


def _fits(output: tuple[int, ...], labels: tuple[int, ...]) -> bool:
    return _plain(output) == _plain(labels)


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """One number a sample is (), however it is written."""
    return () if shape == (1,) else shape


class NumberTally(RowSums):
    """Sums of errors over samples; the tally of Regression.

    MSE and MAE are means over samples of a sample's own mean, with normal intervals. R² is the mean
    over numbers of 1 - sum of squared errors / sum of squared deviations of the labels
    (torchmetrics' R2Score). With one number a sample it has a normal interval by the delta method:
    the deviations of 1 - A / B, A and B the means over samples of e² and d², to first order in
    those of A and B (the labels' mean adds nothing of that order). With several it has none.
    """

    def __init__(self, rows: int, objective: Regression) -> None:
        self._objective = objective
        numbers = objective.numbers
        mean = objective.mean
        self._mean = mean if numbers <= MOST_NUMBERS else None
        self._samples = np.zeros(rows, dtype=np.int64)
        self._squared = np.zeros((2, rows))
        self._absolute = np.zeros((2, rows))
        self._crossed = np.zeros(rows)
        kept = numbers if self._mean is not None else 0
        self._errors = np.zeros((rows, kept))
        self._spread = np.zeros((rows, kept))
        self._spread2 = np.zeros(rows)

    def sums(self) -> dict[str, np.ndarray]:
        return {
            "samples": self._samples,
            "squared": self._squared.T,
            "absolute": self._absolute.T,
            "crossed": self._crossed,
            "errors": self._errors,
            "spread": self._spread,
            "spread_squared": self._spread2,
        }

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
        rows, batch, _ = outputs.shape
        own = slice(first, first + rows)
        goals = labels.double().reshape(batch, -1).numpy()
        with np.errstate(all="ignore"):
            errors = outputs.double().numpy() - goals
            squares = errors * errors
            summed = squares.sum(axis=2)
            each = summed / squares.shape[2]
            far = np.abs(errors).mean(axis=2)
            self._squared[0, own] += each.sum(axis=1)
            self._squared[1, own] += (each * each).sum(axis=1)
            self._absolute[0, own] += far.sum(axis=1)
            self._absolute[1, own] += (far * far).sum(axis=1)
            self._samples[own] += batch
            if self._mean is not None:
                self._errors[own] += squares.sum(axis=1)
                apart = (goals - self._mean) ** 2
                if self._objective.numbers == 1:
                    self._crossed[own] += (squares * apart)[:, :, 0].sum(axis=1)
                self._spread[own] += apart.sum(axis=0)
                self._spread2[own] += float((apart * apart).sum())
        return Judged(np.empty((rows, batch, 0), dtype=np.int8), None, summed, None)

    def evaluation(self, row: int) -> Evaluation:
        samples = int(self._samples[row])
        mse = _mean(self._squared[:, row], samples)
        mae = _mean(self._absolute[:, row], samples)
        return Evaluation(
            samples=samples,
            correct=None,
            loss=mse.value,
            kind=Kind.REGRESSION,
            estimates={"mse": mse, "mae": mae, "r2": self._r2(row, samples), "loss": mse},
        )

    def _r2(self, row: int, samples: int) -> Known | Mean:
        if self._mean is None or samples < 2 or not (self._spread[row] > 0).all():
            return Known(None)
        with np.errstate(all="ignore"):
            value = float((1 - self._errors[row] / self._spread[row]).mean())
        if not math.isfinite(value):
            return Known(None)
        if self._objective.numbers > 1:
            return Known(value)
        return Mean(value, self._r2_error(row, samples))

    def _r2_error(self, row: int, samples: int) -> float | None:
        a, b = self._errors[row, 0] / samples, self._spread[row, 0] / samples
        # Mean of (e² - A d² / B)² over samples, from the sums of e⁴, e² d² and d⁴.
        ratio = a / b
        fourth = (
            self._squared[1, row] - 2 * ratio * self._crossed[row] + ratio**2 * self._spread2[row]
        )
        error = math.sqrt(max(0.0, float(fourth)) / samples / (samples - 1)) / b
        return float(error) if math.isfinite(error) else None


def _mean(sums: np.ndarray, samples: int) -> Mean:
    total, squares = (float(each) for each in sums)
    value = total / samples if samples else math.nan
    if not math.isfinite(value):
        return Mean(None, None)
    return Mean(value, mean_error(total, squares, samples), 0.0)
