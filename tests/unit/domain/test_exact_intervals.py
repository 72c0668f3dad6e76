"""Limits of counts drawn without replacement, held against scipy's hypergeometric distribution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from app.domain.exact_intervals import count_limits, hypergeometric_cdf, paired_drop_interval


@st.composite
def draws(draw: st.DrawFn) -> tuple[int, int, int, int]:
    population = draw(st.integers(1, 400))
    marked = draw(st.integers(0, population))
    drawn = draw(st.integers(0, population))
    return draw(st.integers(0, drawn)), population, marked, drawn


@given(draws())
def test_the_distribution_is_scipys(case: tuple[int, int, int, int]) -> None:
    hits, population, marked, drawn = case
    expected = hypergeom.cdf(hits, population, marked, drawn)
    assert hypergeometric_cdf(hits, population, marked, drawn) == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 150), st.data(), st.sampled_from([0.25, 0.025, 0.001]))
@settings(max_examples=60)
def test_limits_are_all_numbers_that_are_not_refuted(
    population: int, data: st.DataObject, tail: float
) -> None:
    drawn = data.draw(st.integers(1, population))
    hits = data.draw(st.integers(0, drawn))
    possible = np.arange(hits, population - (drawn - hits) + 1)
    below = hypergeom.cdf(hits, population, possible, drawn)
    above = hypergeom.sf(hits - 1, population, possible, drawn)
    # Away from the very edge, where rounding decides.
    sure = (below > tail * (1 + 1e-9)) & (above > tail * (1 + 1e-9))
    refuted = (below < tail * (1 - 1e-9)) | (above < tail * (1 - 1e-9))
    low, high = count_limits(hits, drawn, population, tail)
    assert low <= possible[sure].min()
    assert possible[sure].max() <= high
    inside = possible[(possible >= low) & (possible <= high)]
    assert not refuted[inside - hits].any()


def test_everything_seen_leaves_nothing_open() -> None:
    assert count_limits(3, 20, 20, 0.01) == (3, 3)
    found = paired_drop_interval(3, 1, 20, 20, 0.05)
    assert (found.low, found.high) == (0.1, 0.1)


def test_the_rule_of_three() -> None:
    """Of 300 samples none has it: at 95 % at most some 3 / 300 of a large population have."""
    _, most = count_limits(0, 300, 1_000_000, 0.05)
    assert most / 1_000_000 == pytest.approx(3 / 300, rel=0.01)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="of"):
        count_limits(5, 4, 10, 0.05)
