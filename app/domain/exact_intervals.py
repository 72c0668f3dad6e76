"""Intervals without approximation for counts drawn without replacement.

The method of Clopper and Pearson (1934) with the hypergeometric distribution in the place of the
binomial: a split of N samples of which an unknown number has a property, n of them seen, drawn at
random without replacement.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from app.domain.statistics import Interval


@lru_cache(maxsize=4)
def _log_factorials(largest: int) -> NDArray[np.float64]:
    logs = np.zeros(largest + 1)
    logs[1:] = np.cumsum(np.log(np.arange(1, largest + 1)))
    return logs


def hypergeometric_cdf(hits: int, population: int, marked: int, drawn: int) -> float:
    """P(X <= hits) when `drawn` of `population` samples are seen and `marked` have the property."""
    first, last = max(0, drawn - (population - marked)), min(hits, marked, drawn)
    if last < first:
        return 0.0
    if hits >= min(marked, drawn):
        return 1.0
    logs = _log_factorials(population)
    i = np.arange(first, last + 1)
    unmarked = population - marked
    terms = logs[marked] - logs[i] - logs[marked - i]
    terms += logs[unmarked] - logs[drawn - i] - logs[unmarked - drawn + i]
    terms -= logs[population] - logs[drawn] - logs[population - drawn]
    return min(1.0, float(np.exp(terms).sum()))


def count_limits(hits: int, drawn: int, population: int, tail: float) -> tuple[int, int]:
    """The fewest and the most samples that can have the property, each wrong with at most `tail`.

    `hits` of `drawn` were seen to have it. Raises ValueError for counts that can't be.
    """
    if not 0 <= hits <= drawn <= population:
        raise ValueError(f"{hits} of {drawn} of {population}")
    certain, possible = hits, population - (drawn - hits)
    low, high = certain, possible
    # The fewest: the first number with P(X >= hits) > tail.
    while low < high:
        middle = (low + high) // 2
        if 1 - hypergeometric_cdf(hits - 1, population, middle, drawn) > tail:
            high = middle
        else:
            low = middle + 1
    fewest = low
    low, high = certain, possible
    while low < high:
        middle = (low + high + 1) // 2
        if hypergeometric_cdf(hits, population, middle, drawn) > tail:
            low = middle
        else:
            high = middle - 1
    return fewest, low


def paired_drop_interval(
    lost: int, gained: int, drawn: int, population: int, error: float
) -> Interval:
    """Where (lost - gained) / population can lie, wrong with a probability of at most `error`.

    `lost` and `gained` of `drawn` samples were seen. Each of the four limits takes a quarter of
    the error (Bonferroni), so the interval holds whatever the two rates are.
    """
    lost_low, lost_high = count_limits(lost, drawn, population, error / 4)
    gained_low, gained_high = count_limits(gained, drawn, population, error / 4)
    return Interval((lost_low - gained_high) / population, (lost_high - gained_low) / population)
