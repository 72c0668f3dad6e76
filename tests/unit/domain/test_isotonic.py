"""The isotonic fit, against scikit-learn's and against its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import isotonic_regression

from app.domain.isotonic import isotonic_fit

POINTS = st.lists(
    st.tuples(st.floats(-1, 1).map(lambda v: round(v, 6)), st.floats(0.015625, 1e6)),
    min_size=1,
    max_size=40,
)


@given(POINTS)
def test_it_is_what_another_library_finds(points: list[tuple[float, float]]) -> None:
    values, weights = (list(part) for part in zip(*points, strict=True))
    theirs = isotonic_regression(np.array(values), sample_weight=np.array(weights))
    np.testing.assert_allclose(isotonic_fit(values, weights), theirs, atol=1e-9)


@given(POINTS)
def test_it_rises_and_keeps_the_weighted_mean(points: list[tuple[float, float]]) -> None:
    values, weights = (list(part) for part in zip(*points, strict=True))
    fit = isotonic_fit(values, weights)
    assert all(left <= right for left, right in itertools.pairwise(fit))
    total = sum(weights)
    before = sum(v * w for v, w in zip(values, weights, strict=True)) / total
    after = sum(v * w for v, w in zip(fit, weights, strict=True)) / total
    assert after == pytest.approx(before, abs=1e-9)


def test_by_hand() -> None:
    assert isotonic_fit([], []) == []
    assert isotonic_fit([0.0, 0.2, 0.1, 0.5], [1, 1, 3, 1]) == pytest.approx([0, 0.125, 0.125, 0.5])
    assert isotonic_fit([3, 2, 1], [1, 1, 1]) == [2, 2, 2]
    with pytest.raises(ValueError, match="zip"):
        isotonic_fit([1.0], [1.0, 2.0])
