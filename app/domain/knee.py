"""How far a curve can go: the largest sparsity up to which it stays within a tolerated drop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app.domain.adaptive import Drop


@dataclass(frozen=True)
class Knee:
    sparsity: float
    drop: Drop


def knee_of(points: Iterable[tuple[float, Drop]], tolerance: float) -> Knee | None:
    """The last of the `points` before the first whose drop is more than `tolerance`.

    `points` are (sparsity, drop) of one curve by rising sparsity. A curve that comes back under the
    tolerance later does not count: whoever chose a sparsity there would stand beyond a cliff. None
    when not even the first point is within.
    """
    found: Knee | None = None
    for sparsity, drop in points:
        if not drop.value <= tolerance:  # NaN is not within either
            break
        found = Knee(sparsity, drop)
    return found
