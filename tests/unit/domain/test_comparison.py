"""Paired comparisons, against exact enumeration, scipy and simulation."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from app.domain.adaptive import Strata
from app.domain.comparison import (
    agresti_min,
    answers_of_a_sample,
    compare,
    mid_p,
    unpack,
)
from app.domain.stream_order import STRATA, strata_of, stream_order


@given(st.integers(0, 60), st.integers(0, 60))
def test_mid_p_by_enumeration(first: int, second: int) -> None:
    """Twice the tail at one half, less the probability of what was seen, all in whole numbers."""
    total, fewer = first + second, min(first, second)
    if first == second:
        assert mid_p(first, second) == 1.0
        return
    tail = sum(comb(total, k) for k in range(fewer + 1))
    expected = (2 * tail - comb(total, fewer)) / 2**total
    assert mid_p(first, second) == pytest.approx(min(1.0, expected), rel=1e-9)
    assert mid_p(first, second) == mid_p(second, first)


def test_mid_p_of_many_samples_against_scipy() -> None:
    for first, second in ((40_000, 39_000), (3000, 1), (100_000, 100_400)):
        total, fewer = first + second, min(first, second)
        expected = 2 * binom.cdf(fewer, total, 0.5) - binom.pmf(fewer, total, 0.5)
        assert mid_p(first, second) == pytest.approx(expected, rel=1e-6, abs=1e-300)


@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_bits_come_back_as_they_were_packed(samples: int, answers: int, seed: int) -> None:
    bits = np.random.default_rng(seed).random((samples, answers)) < 0.5
    packed = np.packbits(bits.reshape(-1)).tobytes()
    np.testing.assert_array_equal(unpack(packed, samples, answers), bits)
    if samples >= 8:
        assert answers_of_a_sample(len(packed), samples) == answers
    with pytest.raises(ValueError, match="bytes"):
        unpack(packed + b"\0", samples, answers)


@pytest.mark.parametrize(("size", "samples"), [(0, 10), (1, 9), (14, 100), (5, 0)])
def test_a_length_that_fits_no_number_of_answers(size: int, samples: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        answers_of_a_sample(size, samples)


def test_agresti_and_min_cover_as_they_should() -> None:
    """Exact coverage, over all outcomes of 40 samples with 4 and 2 discordant in 20 expected."""
    samples, ahead, behind = 40, 0.2, 0.1
    covered = 0.0
    for first in range(samples + 1):
        for second in range(samples + 1 - first):
            low, high = agresti_min(first, second, samples, 0.95)
            if low <= ahead - behind <= high:
                rest = samples - first - second
                ways = comb(samples, first) * comb(samples - first, second)
                covered += ways * ahead**first * behind**second * (1 - ahead - behind) ** rest
    assert 0.93 < covered < 0.98
    low, high = agresti_min(0, 0, 50, 0.95)
    assert low < 0 < high, "nothing was seen to differ, which is not nothing differs"


def columns(bits: np.ndarray) -> np.ndarray:
    return bits[:, None]


def test_whole_splits_are_compared_exactly() -> None:
    generator = np.random.default_rng(3)
    first, second = generator.random(1000) < 0.8, generator.random(1000) < 0.7
    found = compare(columns(first), columns(second), confidence=0.95)
    assert found.value == pytest.approx(first.mean() - second.mean())
    ahead, behind = (first & ~second).sum(), (second & ~first).sum()
    assert found.p == mid_p(int(ahead), int(behind))
    assert found.low < found.value < found.high
    assert found.significant(0.95)
    same = compare(columns(first), columns(first), confidence=0.95)
    assert (same.value, same.p, same.significant(0.95)) == (0.0, 1.0, False)


def test_noise_is_rarely_called_a_difference() -> None:
    """Two networks that are equally good, each wrong where it happens to be: 5 % at most."""
    generator = np.random.default_rng(0)
    called = 0
    for _ in range(1000):
        first, second = (columns(generator.random(200) < 0.9) for _ in range(2))
        called += compare(first, second, confidence=0.95).p < 0.05
    assert called < 70


def test_the_beginning_of_a_stream_tells_the_difference_on_the_split() -> None:
    """Hard samples come early: a plain mean would be far off, and the truth is in the interval."""
    generator = np.random.default_rng(2)
    inside, plain_off = 0, []
    for seed in range(200):
        hardness = generator.random(4000)
        members = strata_of(hardness, hardness > 0.95)
        first = generator.random(4000) > 0.6 * hardness**2
        second = generator.random(4000) > hardness**2
        order = stream_order(members, seed)
        sizes = tuple(int(size) for size in np.bincount(members, minlength=STRATA))
        truth = first.mean() - second.mean()
        parts = [columns(bits[order][:600]) for bits in (first, second)]
        streamed = members[order].astype(np.uint8)
        found = compare(*parts, confidence=0.95, strata=Strata(sizes), members=streamed)
        assert found.samples == 600
        inside += found.low <= truth <= found.high
        plain_off.append(parts[0].mean() - parts[1].mean() - truth)
    # 95 % of 200, less three deviations.
    assert inside >= 181
    assert abs(np.mean(plain_off)) > 0.01


def test_samples_of_many_answers_count_once() -> None:
    first = np.zeros((100, 50), dtype=bool)
    second = first.copy()
    first[:3] = True
    found = compare(first, second, confidence=0.95)
    assert found.p == mid_p(3, 0)
    assert found.value == pytest.approx(0.03)
