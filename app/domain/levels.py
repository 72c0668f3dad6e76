"""Sparsity levels: how they are keyed, counted and ordered.

A level is an integer number of millionths, so that 0.3 and 0.1 + 0.2 are the same cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.domain.errors import InvalidInput

LEVEL_SCALE = 1_000_000
DEFAULT_SPARSITIES: tuple[float, ...] = tuple(round(0.05 * i, 2) for i in range(1, 20))


def to_level(sparsity: float) -> int:
    """Sparsity (fraction 0 to 1) to its level in millionths. Raises InvalidInput outside 0 to 1."""
    if not 0.0 <= sparsity <= 1.0:  # NaN fails this too
        raise InvalidInput(
            f"A sparsity of {sparsity!r} is outside 0 to 1.",
            "Give the fraction of weights to remove, for example 0.5 for half of them.",
        )
    return round(sparsity * LEVEL_SCALE)


def to_sparsity(level: int) -> float:
    return level / LEVEL_SCALE


def removed_count(sparsity: float, size: int) -> int:
    """How many of `size` entries leave at this sparsity: `round(s * n)` of the contract."""
    return round(sparsity * size)


def to_levels(sparsities: Iterable[float]) -> tuple[int, ...]:
    """Distinct levels in ascending order."""
    return tuple(sorted({to_level(s) for s in sparsities}))


def coarse_to_fine(levels: Sequence[int]) -> list[int]:
    """Reorder ascending levels so that every prefix covers the range evenly.

    Breadth-first bisection: the middle first, then the ends' middles, and so on, so that a picture
    drawn from the first few levels is already useful. The highest level comes second, because a
    curve's end says most about its shape.
    """
    ordered = sorted(set(levels))
    if not ordered:
        return []
    result: list[int] = []
    seen: set[int] = set()

    def take(index: int) -> None:
        if index not in seen:
            seen.add(index)
            result.append(ordered[index])

    last = len(ordered) - 1
    take(last // 2)
    take(last)
    take(0)
    spans = [(0, last // 2), (last // 2, last)]
    while spans:
        following: list[tuple[int, int]] = []
        for low, high in spans:
            if high - low > 1:
                middle = (low + high) // 2
                take(middle)
                following += [(low, middle), (middle, high)]
        spans = following
    return result
