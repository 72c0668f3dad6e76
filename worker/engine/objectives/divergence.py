"""How far a pruned network's predictions are from the dense network's: KL(dense || pruned), nats.

KL(p || q) = sum p ln p - sum p ln q (Kullback and Leibler, 1951). The first sum and p are the dense
network's and computed once a batch; ln q is at hand wherever a loss was computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from worker.engine.objectives.counting import log_softmax

Floats = np.ndarray[Any, np.dtype[np.float64]]

_BLAS_ALONE = 8192
"""Longer products OpenBLAS shares among threads of its own, beside those of torch."""

_ROOM_BYTES = 32 * 2**20
_CHUNK = 2**16


@dataclass(frozen=True)
class Reference:
    """What the dense network said of one batch, for as many pruned networks as there are.

    `probabilities` float64 [answers, classes] (multi-label: [batch, labels]); None where they would
    take too much room and follow from `outputs` [answers, classes] each time, to the precision of
    float32. `certainty` float64 [answers] (multi-label: [batch]) is the sum of p ln p over classes
    (labels). A regression has no probabilities, and a reference that says nothing.
    """

    certainty: Floats
    probabilities: Floats | None = None
    outputs: Tensor | None = None

    def part(self, start: int, count: int) -> Reference:
        """`count` answers from number `start` on, again from the first one after the last.

        So for several networks whose answers stand one after the other. With probabilities.
        """
        answers = len(self.certainty)
        start %= answers
        chosen: slice | np.ndarray = slice(start, start + count)
        if start + count > answers:
            chosen = np.arange(start, start + count) % answers
        if self.probabilities is not None:
            return Reference(self.certainty[chosen], self.probabilities[chosen])
        assert self.outputs is not None
        return Reference(self.certainty[chosen], _softmax(self.outputs[chosen]))


def reference_of_classes(outputs: Tensor) -> Reference:
    """Of logits [answers, classes]."""
    if outputs.numel() <= _CHUNK:
        logs = log_softmax(outputs)
        probabilities = torch.exp(logs).numpy()
        return Reference(expected(probabilities, logs.numpy()), probabilities)
    count, width = outputs.shape
    certainty = np.empty(count)
    kept = np.empty((count, width)) if 8 * count * width <= _ROOM_BYTES else None
    step = max(1, _CHUNK // width)
    for start in range(0, count, step):
        own = slice(start, start + step)
        logs = log_softmax(outputs[own])
        if kept is None:
            certainty[own] = expected(_softmax(outputs[own]), logs.numpy())
        else:
            kept[own] = torch.exp(logs).numpy()
            certainty[own] = expected(kept[own], logs.numpy())
    return Reference(certainty, kept, outputs if kept is None else None)


def divergences(reference: Reference, logs: Floats) -> Floats:
    """KL of ln q [..., answers, classes] from the reference: [..., answers].

    What rounding makes negative is 0; NaN where one of the two has NaN.
    """
    assert reference.probabilities is not None
    found = reference.certainty - expected(reference.probabilities, logs)
    return np.maximum(found, 0.0, out=found)


def expected(probabilities: Floats, logs: Floats) -> Floats:
    """sum p ln q over classes, an impossible class (p = 0) adding nothing even where ln q = -inf.

    Each answer by itself, so that its bits don't depend on those beside it.
    """
    with np.errstate(all="ignore"):
        found = _dot(probabilities, logs)
        if not math.isfinite(found.sum()):
            spoilt = ~np.isfinite(found)
            p = np.broadcast_to(probabilities, logs.shape)[spoilt]
            found[spoilt] = _products(p, logs[spoilt]).sum(axis=-1)
    return found


def reference_of_labels(outputs: Tensor, labels: Tensor) -> Reference:
    """Of logits [batch, labels], each label a yes or no of its own."""
    values = outputs.double()
    losses = functional.binary_cross_entropy_with_logits(values, labels.double(), reduction="none")
    probabilities = torch.sigmoid(values).numpy()
    summed = losses.numpy().sum(axis=1)
    return Reference(_expected_of_labels(probabilities, summed, values, labels), probabilities)


def divergences_of_labels(
    reference: Reference, losses: Floats, values: Tensor, labels: Tensor
) -> Floats:
    """KL of logits [rows, batch, labels] (float64) from the reference: [rows, batch].

    Summed over the labels of a sample, as are `losses` [rows, batch], their cross-entropies.
    """
    assert reference.probabilities is not None
    q = _expected_of_labels(reference.probabilities, losses, values, labels)
    found = reference.certainty - q
    return np.maximum(found, 0.0, out=found)


def _expected_of_labels(p: Floats, losses: Floats, values: Tensor, labels: Tensor) -> Floats:
    """sum p ln q + (1 - p) ln (1 - q) over labels, of logits z: q = sigmoid(z).

    A label y has the loss -y ln q - (1 - y) ln (1 - q), and ln q - ln (1 - q) = z: it's (p - y) z
    less the loss.
    """
    z = values.numpy()
    with np.errstate(all="ignore"):
        found = _dot(p - labels.double().numpy(), z) - losses
        if not math.isfinite(found.sum()):
            spoilt = ~np.isfinite(found)
            some = torch.from_numpy(z[spoilt])
            yes, no = functional.logsigmoid(some).numpy(), functional.logsigmoid(-some).numpy()
            chance = np.broadcast_to(p, z.shape)[spoilt]
            whole = _products(chance, yes) + _products(1 - chance, no)
            found[spoilt] = whole.sum(axis=-1)
    return found


def _softmax(outputs: Tensor) -> Floats:
    """In float32, which takes half the time: a KL's error is some 1e-7 of the mean |ln p/q|."""
    return torch.softmax(outputs.float(), 1).double().numpy()


def _dot(weights: Floats, values: Floats) -> Floats:
    width = values.shape[-1]
    found = np.asarray(np.vecdot(weights[..., :_BLAS_ALONE], values[..., :_BLAS_ALONE]))
    for start in range(_BLAS_ALONE, width, _BLAS_ALONE):
        own = slice(start, start + _BLAS_ALONE)
        found += np.vecdot(weights[..., own], values[..., own])
    return found


def _products(weights: Floats, values: Floats) -> Floats:
    """Weights of 0 times anything are 0."""
    return np.where(weights == 0, 0.0, weights * values)


class Divergence:
    """Sums of divergences of several networks (rows), where every batch had a reference."""

    def __init__(self, rows: int) -> None:
        self._total = np.zeros(rows)
        self._unreferenced = np.zeros(rows, dtype=bool)

    def sums(self) -> dict[str, np.ndarray[Any, Any]]:
        """As views, the rows first."""
        return {"divergence": self._total, "unreferenced": self._unreferenced}

    def add(self, own: slice, apart: Floats | None) -> None:
        """Divergences [rows, batch] of some rows, None without a reference."""
        if apart is None:
            self._unreferenced[own] = True
            return
        with np.errstate(all="ignore"):
            self._total[own] += apart.sum(axis=1)

    def mean(self, row: int, answers: int) -> float | None:
        """In nats an answer; None without a reference, without answers or when not finite."""
        if self._unreferenced[row] or not answers:
            return None
        found = float(self._total[row]) / answers
        return found if math.isfinite(found) else None
