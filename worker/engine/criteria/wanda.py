"""Wanda: small weights that meet small inputs."""

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
from worker.engine.criteria.ranks import ranked_in_rows


class Wanda(Criterion):
    """`|W_ij| norm2(X_j)` (Sun et al., 2023, equation 1).

    Weights are compared within an output row only, so entries leave evenly over the rows whatever
    their number: first the lowest of every row (among these, the lowest score first), then the
    second lowest of every row, and so on. The inputs of a convolution are the patches of its input;
    X_j runs over all places of all samples.
    """

    facts = CRITERIA["wanda"]
    statistics = frozenset([Statistic.INPUT_NORMS])

    def removal(self, subject: Subject) -> Removal:
        view = subject.seen.matrices()
        norms = subject.seen.input_norms()
        require_finite(norms, "inputs")
        scores = view.matrices(subject.weight).double().abs() * norms[:, None]
        groups, rows, columns = scores.shape
        ranks = ranked_in_rows(scores.reshape(groups * rows, columns))
        rank = view.weight(ranks.reshape(groups, rows, columns), subject.weight.shape)
        return Removal(rank.contiguous(), remark_on(scores))
