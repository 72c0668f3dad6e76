"""Magnitude, and magnitude made comparable between layers."""

from __future__ import annotations

import torch
from torch import Tensor

from app.domain.criteria import CRITERIA
from worker.engine.criteria.base import Criterion, Removal, Subject, remark_on, require_finite
from worker.engine.criteria.ranks import ranked


class Magnitude(Criterion):
    """`|w|` (Han et al., 2015, section 3)."""

    facts = CRITERIA["magnitude"]

    def removal(self, subject: Subject) -> Removal:
        scores = subject.weight.abs()
        return Removal(ranked(scores), remark_on(scores))


class Lamp(Criterion):
    """`w_u^2 / sum of w_v^2 over v >= u` in the order of magnitude (Lee et al., 2021, equation 2).

    The score falls nowhere along that order, so within one layer it removes what magnitude removes.
    """

    facts = CRITERIA["lamp"]

    def removal(self, subject: Subject) -> Removal:
        require_finite(subject.weight, "weights")
        return Removal(ranked(lamp_scores(subject.weight)), remark_on(subject.weight.abs()))


def lamp_scores(weight: Tensor) -> Tensor:
    """float64 scores in the shape of `weight`; of equal weights the first has the lower one."""
    squares = weight.detach().double().reshape(-1).square()
    order = torch.sort(weight.detach().abs().reshape(-1), stable=True).indices
    ascending = squares[order]
    at_least = ascending.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    # Zeros at the very end would be 0/0: a weight of nothing but zeros scores nothing.
    scores[order] = torch.where(ascending > 0, ascending / at_least, ascending)
    return scores.reshape(weight.shape)
