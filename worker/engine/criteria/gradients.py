"""Scores from gradients: by how much the loss would change, to first or second order.

The loss is the objective's, of each sample by itself; the network is in evaluation mode.
"""

from __future__ import annotations

from app.domain.criteria import CRITERIA
from worker.engine.criteria.base import (
    Criterion,
    Removal,
    Statistic,
    Subject,
    remark_on,
    require_finite,
)
from worker.engine.criteria.ranks import ranked


class Taylor(Criterion):
    """Mean over samples of `(g w)^2` (Molchanov et al., 2019, equation 8, groups of one entry)."""

    facts = CRITERIA["taylor"]
    statistics = frozenset([Statistic.SQUARED_GRADIENT])

    def removal(self, subject: Subject) -> Removal:
        squared = subject.seen.squared_gradient
        require_finite(squared, "gradients")
        scores = squared * subject.weight.to(squared.dtype).square()
        return Removal(ranked(scores), remark_on(scores))


class Fisher(Criterion):
    """`F_ii w^2 / 2`, `F = E[g^2]` over samples (LeCun et al., 1989; Theis et al., 2018)."""

    facts = CRITERIA["fisher"]
    statistics = frozenset([Statistic.SQUARED_GRADIENT])

    def removal(self, subject: Subject) -> Removal:
        squared = subject.seen.squared_gradient
        require_finite(squared, "gradients")
        scores = squared * subject.weight.to(squared.dtype).square() / 2
        return Removal(ranked(scores), remark_on(scores))


class Snip(Criterion):
    """`|g w|`, g the gradient of the mean loss over samples (Lee et al., 2019, equation 6)."""

    facts = CRITERIA["snip"]
    statistics = frozenset([Statistic.MEAN_GRADIENT])

    def removal(self, subject: Subject) -> Removal:
        gradient = subject.seen.mean_gradient
        require_finite(gradient, "gradients")
        scores = (gradient * subject.weight.to(gradient.dtype)).abs()
        return Removal(ranked(scores), remark_on(scores))
