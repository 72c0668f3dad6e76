"""What every criterion is: facts for people, and a way from one unit's weight to its removal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from app.domain.criteria import CriterionFacts, Needs

if TYPE_CHECKING:
    from worker.engine.criteria.moments import Moments
    from worker.engine.graph import CanonicalModel
    from worker.engine.units import Unit

ALL_ZERO = "Every entry is zero already."
ALL_EQUAL = "All entries score the same, so they leave by their place alone."


class Statistic(StrEnum):
    """What one pass over `train` can learn of a weight.

    `MEAN_GRADIENT` and `SQUARED_GRADIENT`: the mean over samples of g and of g^2, in the weight's
    shape, g the gradient of one sample's loss. `INPUT_NORMS`: the norm of each input column.
    `INPUT_PRODUCTS`: X X^T of the input columns. Read from `Subject.seen`, see `Moments`.
    """

    MEAN_GRADIENT = "mean gradient"
    SQUARED_GRADIENT = "squared gradient"
    INPUT_NORMS = "input norms"
    INPUT_PRODUCTS = "input products"


class CannotRank(Exception):
    """A criterion has no order for this unit; the message says why, in a sentence."""


@dataclass(frozen=True)
class Refusal:
    """Why a unit has no curve by a criterion, in a sentence for people."""

    reason: str


Rewrite = Callable[[int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Removal:
    """How one unit is pruned by one criterion.

    `rank` has the weight's shape, int32 or int64: an entry leaves when its rank is below the number
    of entries to remove. `remark`: what people should know about the order. `rewrite`: for criteria
    that change the weights that stay, a function of that number: the whole new weight, and which
    entries are kept (bool). Which entries leave then depends on the number: an entry removed at one
    may be kept at a higher one, and `rank` only says what scored how on the dense weight.
    """

    rank: Tensor
    remark: str | None = None
    rewrite: Rewrite | None = field(default=None, repr=False)

    def weight(self, count: int) -> Tensor | None:
        """None where a mask is all; else the whole new weight with `count` entries removed."""
        return None if self.rewrite is None else self.rewrite(count)[0]

    def kept(self, count: int) -> Tensor:
        """Bool [weight's shape]: which entries stay when `count` leave."""
        return self.rank >= count if self.rewrite is None else self.rewrite(count)[1]


@dataclass(frozen=True)
class Subject:
    """One unit as a criterion sees it, on the dense network.

    `weight` is the unit's tensor without autograd history; not to be changed. `moments`: what a
    pass over `train` showed of it, for criteria that ask for it.
    """

    model: CanonicalModel
    unit: Unit
    weight: Tensor
    seed: int
    moments: Moments | None = None

    @property
    def seen(self) -> Moments:
        """What the pass over `train` showed."""
        if self.moments is None:
            raise CannotRank("It has to be seen at work, and was not.")
        return self.moments


class Criterion(ABC):
    """One way of ranking the entries of a weight. The lowest scores leave first.

    An operator's own subclass has `facts` with a name, a title, a sentence and a source, names the
    statistics that it reads from `Subject.seen` in `statistics`, and gives `removal`.
    """

    facts: ClassVar[CriterionFacts]
    statistics: ClassVar[frozenset[Statistic]] = frozenset()

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def title(self) -> str:
        return self.facts.title

    @property
    def description(self) -> str:
        return self.facts.description

    @property
    def source(self) -> str:
        return self.facts.source

    @property
    def needs(self) -> Needs:
        return self.facts.needs

    @property
    def rewrites(self) -> bool:
        return self.facts.rewrites

    @abstractmethod
    def removal(self, subject: Subject) -> Removal:
        """How the unit is pruned. Raises CannotRank with the reason where there is no order."""


def remark_on(scores: Tensor) -> str | None:
    """What to say of an order by these scores: None, or that it means nothing."""
    flat = scores.reshape(-1)
    return ALL_EQUAL if flat.numel() > 1 and bool((flat == flat[0]).all()) else None


def require_finite(values: Tensor, what: str) -> None:
    """Raises CannotRank when a value is NaN or infinite. `what`: "gradients", say."""
    if not bool(torch.isfinite(values).all()):
        found = "NaN" if bool(values.isnan().any()) else "infinite"
        raise CannotRank(f"Some of its {what} are {found}, so it can't be ranked.")
