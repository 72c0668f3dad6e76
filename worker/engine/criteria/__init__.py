"""Importance scores: one registry, one family a file. The lowest scores leave first.

A new criterion is a function in its own file and one line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from torch import Tensor

from app.domain.errors import InvalidInput
from worker.engine.criteria import magnitude, random


class ScoreFunction(Protocol):
    def __call__(self, weight: Tensor, *, unit: str, seed: int) -> Tensor:
        """Scores of the entries of `weight`, in its shape; some use the unit's id and a seed."""
        ...


@dataclass(frozen=True)
class Criterion:
    """One way of ranking weights. `title` is what people read."""

    name: str
    title: str
    score: ScoreFunction


CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        "magnitude": Criterion("magnitude", "Magnitude", magnitude.score),
        "random": Criterion("random", "Random", random.score),
    }
)


def get_criterion(name: str) -> Criterion:
    """The criterion of this name. Raises InvalidInput that lists the known ones."""
    try:
        return CRITERIA[name]
    except KeyError:
        raise InvalidInput(
            f"There is no criterion called {name!r}.", f"Use one of: {', '.join(CRITERIA)}."
        ) from None
