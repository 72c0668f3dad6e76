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

from worker.engine.objectives.counting import log_softmax

Floats = np.ndarray[Any, np.dtype[np.float64]]

_BLAS_ALONE = 8192
"""Longer products OpenBLAS shares among threads of its own, beside those of torch."""


@dataclass(frozen=True)
class Reference:
    """What the dense network said of one batch, for as many pruned networks as there are.

    `probabilities` float64 [answers, classes] (multi-label: [batch, labels]); None where they would
    take too much room and follow from `outputs` each time. `certainty` float64 [answers]
    (multi-label: [batch]) is the sum of p ln p over classes. A regression has no probabilities, and
    a reference that says nothing.
    """

    certainty: Floats
    probabilities: Floats | None = None
    outputs: Tensor | None = None


def reference_of_classes(outputs: Tensor) -> Reference:
    """Of outputs [answers, classes]."""
    logs = log_softmax(outputs)
    probabilities = torch.exp(logs).numpy()
    return Reference(expected(probabilities, logs.numpy()), probabilities)


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
        if logs.shape[-1] <= _BLAS_ALONE:
            found = np.vecdot(probabilities, logs)
        else:
            found = np.einsum("...c,...c->...", probabilities, logs)
        spoilt = ~np.isfinite(found)
        if spoilt.any():
            p = np.broadcast_to(probabilities, logs.shape)[spoilt]
            found[spoilt] = np.where(p == 0, 0.0, p * logs[spoilt]).sum(axis=-1)
    return found


class Divergence:
    """Sums of divergences of several networks (rows), where every batch had a reference."""

    def __init__(self, rows: int) -> None:
        self._total = np.zeros(rows)
        self._unreferenced = np.zeros(rows, dtype=bool)

    def sums(self) -> dict[str, np.ndarray[Any, Any]]:
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
