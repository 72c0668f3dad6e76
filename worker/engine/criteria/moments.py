"""What a pass over `train` adds up for one weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.engine.criteria.base import CannotRank, Statistic
from worker.engine.criteria.matrices import MatrixView

MOST_COLUMNS = 8192
"""Input columns up to which X X^T is kept: 256 MiB of it in float32."""

NO_GRADIENT = "The loss doesn't depend on it, so it has no gradient to be ranked by."


@dataclass
class Moments:
    """The sums over the samples seen, of one weight.

    `samples`: how many these were. Gradients are sums over samples, in the weight's shape, of g and
    of g^2, g being the gradient of one sample's loss. `squares` [groups, columns] float64 and
    `products` [groups, columns, columns] are sums over all places of all samples, of `view`'s
    columns; `factors` is what SparseGPT makes of the latter, once for all who ask. `unseen` says
    why inputs aren't seen.
    """

    wanted: frozenset[Statistic]
    samples: int = 0
    gradient_sum: Tensor | None = None
    square_sum: Tensor | None = None
    view: MatrixView | None = None
    squares: Tensor | None = None
    products: Tensor | None = None
    factors: tuple[Tensor, Tensor] | None = None
    unseen: str | None = None

    @property
    def mean_gradient(self) -> Tensor:
        """The gradient of the mean loss over samples."""
        if self.gradient_sum is None:
            raise CannotRank(NO_GRADIENT)
        return self.gradient_sum / max(1, self.samples)

    @property
    def squared_gradient(self) -> Tensor:
        """The mean over samples of the squared gradient of a sample's loss."""
        if self.square_sum is None:
            raise CannotRank(NO_GRADIENT)
        return self.square_sum / max(1, self.samples)

    def matrices(self) -> MatrixView:
        """How the weight meets its inputs. Raises CannotRank where they aren't seen."""
        if self.unseen is not None:
            raise CannotRank(self.unseen)
        if self.view is None:
            raise CannotRank("Its inputs were not seen: the network never got there.")
        return self.view

    def input_norms(self) -> Tensor:
        """The Euclidean norm of each input column over all places, float64 [groups, columns]."""
        self.matrices()
        assert self.squares is not None
        return self.squares.sqrt()

    def input_products(self) -> Tensor:
        """X X^T, [groups, columns, columns]. Raises CannotRank where it would be too large."""
        self.matrices()
        if self.products is None:
            raise CannotRank(
                f"It has more than {MOST_COLUMNS:,} input columns: the matrix of their products "
                "would take too much memory."
            )
        return self.products

    def add_inputs(self, view: MatrixView, squares: Tensor | None, products: Tensor | None) -> None:
        self.view = view
        if squares is not None:
            self.squares = squares if self.squares is None else self.squares.add_(squares)
        if products is not None:
            self.products = products if self.products is None else self.products.add_(products)


def added(total: Tensor | None, part: Tensor) -> Tensor:
    """The sum in place, of a first part its own copy in at least float32."""
    if total is None:
        return part.to(torch.promote_types(part.dtype, torch.float32), copy=True)
    return total.add_(part)
