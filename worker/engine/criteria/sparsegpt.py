"""SparseGPT: the weights that the others can best make up for, and how these then change."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from app.domain.criteria import CRITERIA
from worker.engine.criteria.base import (
    CannotRank,
    Criterion,
    Removal,
    Statistic,
    Subject,
    remark_on,
    require_finite,
)
from worker.engine.criteria.matrices import MatrixView
from worker.engine.criteria.ranks import ranked, removal_order
from worker.engine.criteria.samples import one_thread

BLOCK = 128
DAMPING = 0.01
_EXACT_COLUMNS = 2048


class SparseGpt(Criterion):
    """`w^2 / [chol(H^-1)]_jj^2`, ranked over the whole weight; what stays is left as it is."""

    facts = CRITERIA["sparsegpt"]
    statistics = frozenset([Statistic.INPUT_PRODUCTS])

    def removal(self, subject: Subject) -> Removal:
        layer = _layer(subject)
        scores = layer.view.weight(layer.scores(layer.matrices), subject.weight.shape)
        return Removal(ranked(scores.contiguous()), remark_on(scores))


class SparseGptUpdate(Criterion):
    """Frantar and Alistarh (2023), algorithm 1: prune block by block, let later columns make up.

    Each block of 128 columns loses its share of the entries, so that the whole weight loses exactly
    as many as asked for. Every layer is worked out from the dense network's inputs, also where
    several layers are pruned together: none makes up for what the layers before it lost.
    """

    facts = CRITERIA["sparsegpt-update"]
    statistics = frozenset([Statistic.INPUT_PRODUCTS])

    def removal(self, subject: Subject) -> Removal:
        layer = _layer(subject)
        scores = layer.view.weight(layer.scores(layer.matrices), subject.weight.shape)
        return Removal(ranked(scores.contiguous()), remark_on(scores), rewrite=layer.rewritten)


@dataclass
class Layer:
    """One weight as matrices [groups, rows, columns], and the factors of its inverse Hessians.

    `factors`: upper triangular U [groups, columns, columns] with H^-1 = U^T U. `dead` [groups,
    columns]: columns whose input is always zero.
    """

    view: MatrixView
    weight: Tensor
    matrices: Tensor
    factors: Tensor
    dead: Tensor
    _last: tuple[int, Tensor, Tensor] | None = field(default=None, repr=False)

    def scores(self, matrices: Tensor, first: int = 0) -> Tensor:
        """The saliency of entries of the columns from `first` on, in the shape of `matrices`.

        Half of it is the least rise of the layer's squared error when the entry leaves and the
        columns after it make up for it. An entry that meets nothing but zeros costs nothing.
        """
        last = first + matrices.shape[2]
        pivots = self.factors.diagonal(dim1=1, dim2=2)[:, first:last]
        scores = (matrices / pivots[:, None]).square()
        return scores.masked_fill(self.dead[:, None, first:last], 0)

    def rewritten(self, count: int) -> tuple[Tensor, Tensor]:
        """The new weight with `count` entries at zero, and which are kept (bool)."""
        if self._last is None or self._last[0] != count:
            with one_thread(), torch.no_grad(), torch.inference_mode(False):
                new, kept = self._pruned(count)
            shape = self.weight.shape
            weight = self.view.weight(new, shape).to(self.weight.dtype).contiguous()
            mask = self.view.weight(kept, shape).contiguous()
            self._last = (count, weight.masked_fill_(~mask, 0), mask)
        return self._last[1], self._last[2]

    def _pruned(self, count: int) -> tuple[Tensor, Tensor]:
        work = self.matrices.clone()
        kept = torch.ones_like(work, dtype=torch.bool)
        groups, rows, columns = work.shape
        a_column, whole = groups * rows, work.numel()
        for first in range(0, columns, BLOCK):
            last = min(first + BLOCK, columns)
            block = work[:, :, first:last]
            # Shares that add up to the count, each no larger than its block.
            share = count * a_column * last // whole - count * a_column * first // whole
            order = removal_order(self.scores(block, first).contiguous())
            chosen = torch.ones(block.numel(), dtype=torch.bool)
            chosen[order[:share]] = False
            kept[:, :, first:last] = chosen.reshape(block.shape)
            errors = torch.empty_like(block)
            for at in range(first, last):
                column = work[:, :, at]
                gone = torch.where(kept[:, :, at], 0, column)
                error = gone / self.factors[:, at, at][:, None]
                work[:, :, at:last] -= error[:, :, None] * self.factors[:, at, None, at:last]
                work[:, :, at].masked_fill_(~kept[:, :, at], 0)
                errors[:, :, at - first] = error
            work[:, :, last:] -= errors @ self.factors[:, first:last, last:]
        return work, kept


def _layer(subject: Subject) -> Layer:
    """Raises CannotRank where the inputs can't be seen or aren't finite."""
    view = subject.seen.matrices()
    products = subject.seen.input_products()
    require_finite(products, "inputs")
    matrices = view.matrices(subject.weight).to(products.dtype).contiguous()
    if subject.seen.factors is None:
        factors, dead = inverse_factors(products)
        subject.seen.factors = factors.to(products.dtype), dead
    return Layer(view, subject.weight.clone(), matrices, *subject.seen.factors)


def inverse_factors(products: Tensor) -> tuple[Tensor, Tensor]:
    """U, upper triangular with H^-1 = U^T U, [groups, columns, columns], and the dead columns.

    H = 2 X X^T, damped by 1 % of its mean diagonal. A dead column, whose input is always zero, has
    the mean of the others there, so that it changes nothing for them. float64, for wide matrices
    in the products' own dtype. Raises CannotRank where H is not to be inverted.
    """
    wide = products.shape[1] > _EXACT_COLUMNS
    hessian = 2 * (products if wide else products.double())
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    dead = diagonal == 0
    if bool(dead.all()):
        raise CannotRank("All inputs of its layer are zero, so none of its entries does anything.")
    live = (~dead).sum(dim=1, keepdim=True)
    mean = torch.where(live > 0, diagonal.sum(dim=1, keepdim=True) / live.clamp(min=1), 1.0)
    diagonal.copy_(torch.where(dead, mean, diagonal) + DAMPING * mean)
    # With H = R R^T, R upper triangular, U is R^-1: no inverse of H is ever made. R is the lower
    # factor of H with both axes turned round, turned back.
    lower, fault = torch.linalg.cholesky_ex(hessian.flip((1, 2)))
    if bool(fault.any()):
        raise CannotRank("The products of its layer's inputs can't be inverted.")
    identity = torch.eye(len(hessian[0]), dtype=hessian.dtype).expand_as(hessian)
    return torch.linalg.solve_triangular(lower.flip((1, 2)), identity, upper=True), dead
