"""Whether one way of choosing weights is better than another, from answers to the same samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from app.domain.adaptive import Strata, Sums, drop_of
from app.domain.statistics import normal_quantile

Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Difference:
    """By how much the first is ahead of the second, as a share of answers, with its interval.

    `p`: of the paired test that neither is ahead. `samples`: those that both were measured on.
    """

    value: float
    low: float
    high: float
    p: float
    samples: int

    def reversed(self) -> Difference:
        """By how much the second is ahead of the first."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low)

    def significant(self, confidence: float) -> bool:
        """Whether it is larger than the noise: the test says so, and so does the estimate."""
        return self.p < 1 - confidence and self.value > 0


def mid_p(first: int, second: int) -> float:
    """McNemar's exact test with mid-p, two-sided.

    `first`, `second`: the samples that only the one and only the other gets right. Fagerland,
    Lydersen and Laake (2013): twice the binomial tail at one half, less the probability of what was
    seen; close to its level where the exact test is too careful.
    """
    total, fewer = first + second, min(first, second)
    if first == second:
        return 1.0
    # log C(total, k) - total log 2 for k = 0 … fewer, by the ratio of neighbours
    k = np.arange(fewer)
    logs = np.concatenate([[0.0], np.cumsum(np.log((total - k) / (k + 1)))]) - total * math.log(2)
    probabilities = np.exp(logs)
    tail, seen = float(probabilities.sum()), float(probabilities[-1])
    return min(1.0, 2 * tail - seen)


def answers_of_a_sample(packed_bytes: int, samples: int) -> int:
    """How many answers each of `samples` samples has, from the length of their packed bits.

    Raises ValueError when the length fits no number, or more than one.
    """
    most = packed_bytes * 8 // samples if samples else 0
    if most < 1 or -(-samples * most // 8) != packed_bytes:
        raise ValueError(f"{packed_bytes} bytes for {samples} samples")
    return most if samples >= 8 else -(-(packed_bytes * 8 - 7) // samples)


def unpack(packed: bytes, samples: int, answers: int = 1) -> Bits:
    """Right answers [samples, answers] of what `numpy.packbits` made of them.

    Raises ValueError when there are too few or too many.
    """
    if len(packed) != -(-samples * answers // 8):
        raise ValueError(f"{len(packed)} bytes for {samples} samples of {answers} answers")
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=samples * answers)
    return bits.reshape(samples, answers).astype(bool)


def compare(
    first: Bits,
    second: Bits,
    *,
    confidence: float,
    strata: Strata | None = None,
    members: NDArray[np.uint8] | None = None,
) -> Difference:
    """Two networks' right answers [samples, answers], of the same stream, over what both have seen.

    The test treats samples as the draws, each for whichever has more answers of it right. Over a
    whole split the difference is exact there, and its interval is for the population (Agresti and
    Min 2005: half an answer is added to each cell); over the beginning of the stream of a
    stratified split it is estimated for the split, from the stratum of each sample of the stream
    (`members` [samples]). Where that is not known, the plain mean over the samples is given.
    """
    samples = min(len(first), len(second))
    ours, theirs = (bits[:samples].sum(axis=1, dtype=np.int64) for bits in (first, second))
    gains = ours - theirs
    ahead, behind = int((gains > 0).sum()), int((gains < 0).sum())
    p = mid_p(ahead, behind)
    if strata is not None and members is not None and samples < strata.samples:
        sums = Sums()
        sums.add(members[:samples].astype(np.intp), gains * strata.scale)
        found = drop_of(replace(strata, score="answers", apart=False), sums, confidence)
        assert found is not None
        return Difference(found.value, found.low, found.high, p, samples)
    share = gains / max(1, first.shape[1])
    value = float(share.mean())
    if first.shape[1] == 1:
        low, high = agresti_min(ahead, behind, samples, confidence)
    else:
        error = float(share.std(ddof=1)) / math.sqrt(samples) if samples > 1 else 1.0
        half = normal_quantile(confidence) * error
        low, high = value - half, value + half
    return Difference(value, low, high, p, samples)


def agresti_min(ahead: int, behind: int, samples: int, confidence: float) -> tuple[float, float]:
    """Interval of the paired difference `(ahead - behind) / samples` (Agresti and Min 2005).

    Wald's after half a sample was added to each cell of the fourfold table; it stays open where
    nothing was seen to differ.
    """
    total = samples + 2
    share = (ahead - behind) / total
    spread = (ahead + behind + 1) / total - share * share
    half = normal_quantile(confidence) * math.sqrt(max(0.0, spread) / total)
    return max(-1.0, share - half), min(1.0, share + half)
