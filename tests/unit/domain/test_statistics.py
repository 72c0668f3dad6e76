"""Intervals against scipy's, and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from app.domain.statistics import normal_quantile, paired_difference_deviation, wilson

counts = st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_equals_scipy(pair: tuple[int, int], confidence: float) -> None:
    correct, samples = pair
    expected = binomtest(correct, samples).proportion_ci(confidence, method="wilson")
    found = wilson(correct, samples, confidence)
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)


@given(counts)
def test_wilson_holds_the_estimate_and_stays_in_range(pair: tuple[int, int]) -> None:
    correct, samples = pair
    found = wilson(correct, samples)
    assert 0.0 <= found.low <= correct / samples <= found.high <= 1.0


def test_nothing_measured_means_nothing_known() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


@pytest.mark.parametrize(("correct", "samples"), [(-1, 10), (11, 10)])
def test_impossible_counts_are_refused(correct: int, samples: int) -> None:
    with pytest.raises(ValueError, match="correct of"):
        wilson(correct, samples)


def test_quantile() -> None:
    assert normal_quantile(0.95) == pytest.approx(1.959963984540054)


def test_paired_deviation_is_the_spread_of_simulated_differences() -> None:
    rng = np.random.default_rng(0)
    n, p_lost, p_gained = 2000, 0.05, 0.02
    draws = rng.choice([-1, 0, 1], p=[p_lost, 1 - p_lost - p_gained, p_gained], size=(4000, n))
    spread = draws.mean(axis=1).std()
    lost, gained = round(n * p_lost), round(n * p_gained)
    assert paired_difference_deviation(lost, gained, n) == pytest.approx(spread, rel=0.05)


def test_paired_deviation_of_agreement_is_zero() -> None:
    assert paired_difference_deviation(0, 0, 100) == 0.0
    assert paired_difference_deviation(0, 0, 0) == 0.0
    assert math.isfinite(paired_difference_deviation(100, 0, 100))
