"""Levels: keys that don't drift, counts of the contract, an order that shows the shape early."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidInput
from app.domain.levels import (
    DEFAULT_SPARSITIES,
    coarse_to_fine,
    removed_count,
    to_level,
    to_levels,
    to_sparsity,
)


def test_float_noise_is_one_level() -> None:
    assert to_level(0.1 + 0.2) == to_level(0.3) == 300_000
    assert to_levels([0.1 + 0.2, 0.3, 0.05]) == (50_000, 300_000)


@given(st.integers(0, 1_000_000))
def test_a_level_comes_back(level: int) -> None:
    assert to_level(to_sparsity(level)) == level


@given(st.decimals(0, 1, places=3))
def test_a_short_decimal_is_kept_exactly(decimal: object) -> None:
    assert to_sparsity(to_level(float(decimal))) == float(decimal)  # type: ignore[arg-type]


@pytest.mark.parametrize("sparsity", [-0.01, 1.01, float("nan"), float("inf")])
def test_outside_the_range_is_refused(sparsity: float) -> None:
    with pytest.raises(InvalidInput, match="outside 0 to 1"):
        to_level(sparsity)


def test_removed_is_the_contracts_round() -> None:
    assert removed_count(0.5, 9) == round(4.5) == 4
    assert removed_count(0.0, 9) == 0
    assert removed_count(1.0, 9) == 9


@given(st.sets(st.integers(0, 1_000_000), max_size=60))
def test_coarse_to_fine_is_a_permutation(levels: set[int]) -> None:
    assert sorted(coarse_to_fine(sorted(levels))) == sorted(levels)


@given(st.integers(3, 60))
def test_early_levels_cover_the_range(count: int) -> None:
    order = coarse_to_fine(list(range(count)))
    assert set(order[:3]) == {0, (count - 1) // 2, count - 1}
    for known in range(3, count):
        seen = sorted(order[:known])
        gap = max(b - a for a, b in itertools.pairwise(seen))
        assert gap <= 4 * count / known + 1


def test_default_grid() -> None:
    assert len(DEFAULT_SPARSITIES) == 19
    assert DEFAULT_SPARSITIES[0] == 0.05
    assert DEFAULT_SPARSITIES[-1] == 0.95
