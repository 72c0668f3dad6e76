"""Random outputs and labels for an objective of each kind, and figures of a tally fed with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.domain.metrics import Kind
from worker.engine.objectives import (
    IGNORED,
    Evaluation,
    MultiLabel,
    Objective,
    Positions,
    Regression,
    SingleLabel,
    Tally,
)

OBJECTIVES: dict[str, Objective] = {
    "single-3": SingleLabel(3),
    "single-12": SingleLabel(12),
    "single-120": SingleLabel(120),
    "labels-1": MultiLabel(1),
    "labels-6": MultiLabel(6),
    "positions": Positions(Kind.PER_POSITION, 4, (2, 3)),
    "words": Positions(Kind.LANGUAGE_MODELLING, 23, (5,)),
    "number": Regression((), np.array([0.25])),
    "numbers": Regression((3,), np.array([0.1, -0.2, 0.3])),
}


@dataclass(frozen=True)
class Drawn:
    """Outputs [rows, samples, ...] of pruned networks and [samples, ...] of the dense one."""

    objective: Objective
    outputs: Tensor
    dense: Tensor
    labels: Tensor

    @property
    def rows(self) -> int:
        return len(self.outputs)

    def answers(self) -> np.ndarray[Any, Any]:
        return self.objective.tally(1).add(self.dense[None], self.labels, None)[0]

    def feed(
        self, tally: Tally, batches: Sequence[slice], referenced: bool = True, paired: bool = True
    ) -> Tally:
        answers = self.answers()
        for own in batches:
            labels = self.labels[own]
            reference = self.objective.reference(self.dense[own], labels) if referenced else None
            dense = answers[own] if paired else None
            tally.judge(self.outputs[:, own], labels, dense, 0, reference)
        return tally

    def tally(self, batches: Sequence[slice], **how: bool) -> Tally:
        return self.feed(self.objective.tally(self.rows), batches, **how)


def draw(objective: Objective, seed: int, samples: int, rows: int = 3, nan: bool = False) -> Drawn:
    """With ignored positions where there are positions; `nan`: one output of row 0 is NaN."""
    generator = torch.Generator().manual_seed(seed)
    shape: tuple[int, ...]
    if isinstance(objective, SingleLabel):
        shape = (objective.classes,)
        labels = torch.randint(0, objective.classes, (samples,), generator=generator)
    elif isinstance(objective, MultiLabel):
        shape = (objective.labels,)
        labels = torch.randint(0, 2, (samples, *shape), generator=generator)
    elif isinstance(objective, Positions):
        shape = (*objective.shape, objective.classes)
        places = (samples, *objective.shape)
        labels = torch.randint(0, objective.classes, places, generator=generator)
        labels[torch.rand(places, generator=generator) < 0.3] = IGNORED
    else:
        assert isinstance(objective, Regression)
        shape = (objective.numbers,)
        labels = torch.randn(samples, *objective.shape, generator=generator)
    dense = 2 * torch.randn(samples, *shape, generator=generator)
    outputs = dense + torch.randn(rows, samples, *shape, generator=generator)
    if nan and samples:
        outputs[0, samples // 2] = math.nan
    return Drawn(objective, outputs, dense, labels)


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """Everything that an evaluation says, in a form that can be compared."""
    told = evaluation.as_json()
    if evaluation.by_class is not None:
        told["seen"] = evaluation.by_class.seen.tolist()
        told["right"] = evaluation.by_class.right.tolist()
    return told | {"answers": evaluation.answers}


def all_figures(tally: Tally, rows: int) -> list[dict[str, Any]]:
    return [figures(tally.evaluation(row)) for row in range(rows)]
