"""Intervals hold what they promise on samples drawn from populations that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from app.domain.estimates import (
    UNDEFINED,
    ClusteredShare,
    Exponential,
    Known,
    Mean,
    Share,
    figures,
    mean_error,
    ratio_error,
)
from app.domain.statistics import wilson, wilson_share

TRIALS = 2000


def test_the_ratio_error_is_that_of_the_residuals() -> None:
    generator = np.random.default_rng(0)
    y, m = generator.random(50) * 9, generator.integers(1, 6, 50)
    ratio = y.sum() / m.sum()
    residuals = y - ratio * m
    expected = math.sqrt(50 / 49 * (residuals**2).sum()) / m.sum()
    found = ratio_error(y.sum(), m.sum(), (y * y).sum(), (y * m).sum(), (m * m).sum(), 50)
    assert found == pytest.approx(expected)
    assert ratio_error(1.0, 2.0, 1.0, 2.0, 4.0, 1) is None
    assert ratio_error(math.inf, 2.0, math.inf, 2.0, 4.0, 3) is None


def test_the_mean_error_is_the_usual_one() -> None:
    values = np.random.default_rng(1).random(40)
    expected = values.std(ddof=1) / math.sqrt(40)
    assert mean_error(values.sum(), (values**2).sum(), 40) == pytest.approx(expected)
    assert mean_error(1.0, 1.0, 1) is None


def test_clustered_shares_cover_the_truth_where_wilson_does_not() -> None:
    """Positions of one sample share its difficulty, and samples differ in length."""
    generator = np.random.default_rng(2)
    covered = naive = 0
    # Samples of 5 or 20 positions, right with a chance drawn from Beta(6, 2) for each sample.
    truth = 0.75
    for _ in range(TRIALS):
        lengths = generator.choice([5, 20], 120)
        right = generator.binomial(lengths, generator.beta(6, 2, 120))
        hits, answers = int(right.sum()), int(lengths.sum())
        error = ratio_error(
            hits, answers, (right**2).sum(), (right * lengths).sum(), (lengths**2).sum(), 120
        )
        interval = ClusteredShare(hits, answers, 120, error).interval(0.95)
        assert interval is not None
        covered += interval.low <= truth <= interval.high
        plain = wilson(hits, answers, 0.95)
        naive += plain.low <= truth <= plain.high
    assert 0.93 < covered / TRIALS < 0.97
    assert naive / TRIALS < 0.85


def test_perplexity_covers_the_truth() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(TRIALS):
        lengths = generator.integers(10, 30, 150)
        means = generator.gamma(4.0, 0.5, 150)
        totals = means * lengths
        error = ratio_error(
            totals.sum(),
            lengths.sum(),
            (totals**2).sum(),
            (totals * lengths).sum(),
            (lengths**2).sum(),
            150,
        )
        found = Exponential(Mean(totals.sum() / lengths.sum(), error))
        interval = found.interval(0.95)
        assert interval is not None
        covered += interval.low <= math.exp(2.0) <= interval.high
    assert 0.93 < covered / TRIALS < 0.97


def test_all_right_is_not_certain() -> None:
    interval = ClusteredShare(1000, 1000, 50, 0.0).interval(0.95)
    assert interval == wilson(50, 50, 0.95)
    # Answers that differ within samples but not between them are no more than all answers.
    interval = ClusteredShare(500, 1000, 500, 1e-9).interval(0.95)
    assert interval == wilson(500, 1000, 0.95)
    assert ClusteredShare(0, 0, 0, None).value is None


def test_wilson_of_a_share_is_wilson() -> None:
    for hits, samples in ((0, 7), (3, 7), (7, 7), (50, 1000)):
        assert wilson_share(hits / samples, samples, 0.9) == wilson(hits, samples, 0.9)


def test_figures_are_finite_or_nothing() -> None:
    nothing = {"value": None, "low": None, "high": None}
    found = figures(
        {
            "a": Share(1, 2),
            "b": Known(math.nan),
            "c": UNDEFINED,
            "d": Exponential(Mean(1e6, 1.0)),
            "e": Exponential(Mean(700.0, 100.0)),
            "f": Mean(0.1, 1.0, 0.0),
        }
    )
    assert found["a"]["value"] == 0.5
    assert found["b"] == found["c"] == found["d"] == nothing
    assert found["e"] == {"value": math.exp(700.0), "low": None, "high": None}
    assert found["f"]["low"] == 0.0
