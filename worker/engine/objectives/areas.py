"""AUROC from histograms of scores, so that no score has to be kept.

The area under the ROC curve is the chance that a positive sample has a higher score than a negative
one (Mann and Whitney; ties count half). Scores in the same bin are taken as tied, so the binned
value differs from the exact one by at most half of the share of pairs that fall into one bin.

The score is the probability p, and its bin follows from -ln p: 16 bins an octave of it, from 2**-11
to 2**5, one for all beyond at each end. So bins are as fine near p = 1 as their distance from it,
and near p = 0 in proportion to p. They are read off the bits of the float32, which costs next to
nothing and no exponential.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

BINS = 256
MOST_SCORES = 100
"""With more classes or labels than this there is no AUROC: its histograms would cost too much."""

_TOGETHER = 2**17
_SHIFT = 19
_LOWEST = (127 - 11) * 16  # the bits of 2**-11 above the shift


def bins_of(log_probabilities: Tensor) -> Tensor:
    """The bin of each log probability: int32, 0 (p near 1) to 255; of NaN, anything."""
    bits = log_probabilities.float().neg().view(torch.int32)
    return bits.bitwise_right_shift_(_SHIFT).sub_(_LOWEST).clamp_(0, BINS - 1)


def edges() -> np.ndarray:
    """The smallest -ln p of each bin but the first, ascending, float64 [255]."""
    bits = np.arange(_LOWEST + 1, _LOWEST + BINS, dtype=np.int32) << _SHIFT
    return bits.view(np.float32).astype(np.float64)


def area(positives: np.ndarray, every: np.ndarray) -> np.ndarray:
    """AUROC of each of several scores from the counts [..., BINS] of its positive and of all
    samples; NaN for a score without a positive or without a negative one."""
    # Of those that came so far: bins start at the highest scores, so what comes later is lower.
    passed = np.cumsum(positives, axis=-1, dtype=np.int64)
    one = passed[..., -1]
    # Each sample loses against the positives before it and half against those of its own bin;
    # positives among themselves lose half of all their pairs.
    twice = np.einsum("...b,...b->...", every, 2 * passed - positives) - one * one
    other = every.sum(axis=-1, dtype=np.int64) - one
    with np.errstate(invalid="ignore", divide="ignore"):
        return twice / (2.0 * one * other)


class Histograms:
    """Counts of the scores of several networks (rows) by bin: all samples', and the positives'."""

    def __init__(self, rows: int, scores: int) -> None:
        self._scores = scores
        self._every = torch.zeros(rows * scores * BINS, dtype=torch.int32)
        self._positive = torch.zeros(rows * scores * BINS, dtype=torch.int32)

    def add(self, logs: Tensor, positive: Tensor, first: int) -> None:
        """Add log probabilities [rows, batch, scores] of the rows from `first` on.

        `positive`: the one score of each sample that is (int64 [rows * batch, 1]), or which ones
        are (bool [batch, scores]).
        """
        rows, batch, scores = logs.shape
        by_score = logs.stride(2) != 1
        places = bins_of(logs).add_(_starts(first, rows, batch, scores, by_score))
        ones = _ones(places.numel())
        # Counting has no order: the one in which they lie in memory is the fastest.
        every = places.movedim(2, 0) if by_score else places
        self._every.scatter_add_(0, every.reshape(-1), ones)
        if positive.dtype == torch.bool:
            chosen = places[:, positive].view(-1)
        else:
            chosen = places.reshape(rows * batch, scores).gather(1, positive).view(-1)
        self._positive.scatter_add_(0, chosen, ones[: len(chosen)])

    def sums(self) -> dict[str, np.ndarray]:
        """The counts, int32 [rows, scores, BINS], as views."""
        shape = (-1, self._scores, BINS)
        named = {"scores": self._every, "positive_scores": self._positive}
        return {name: each.numpy().reshape(shape) for name, each in named.items()}

    def mean_areas(self) -> np.ndarray:
        """The mean AUROC over scores of each row, NaN where a score has none."""
        every, positive = self.sums().values()
        found = np.empty(len(every))
        # So many rows that what is computed on the way stays small.
        step = max(1, _TOGETHER // (self._scores * BINS))
        for at in range(0, len(every), step):
            own = slice(at, at + step)
            found[own] = area(positive[own], every[own]).mean(axis=1)
        return found


@lru_cache(maxsize=4)
def _starts(first: int, rows: int, batch: int, scores: int, by_score: bool) -> Tensor:
    """Where the histogram of each score begins, int32 [rows, batch, scores].

    `by_score`: those of one score lie side by side in memory.
    """
    starts = torch.arange(first * scores, (first + rows) * scores, dtype=torch.int32) * BINS
    starts = starts.view(rows, 1, scores).expand(rows, batch, scores)
    return starts.movedim(2, 0).contiguous().movedim(0, 2) if by_score else starts.contiguous()


@lru_cache(maxsize=4)
def _ones(count: int) -> Tensor:
    return torch.ones(count, dtype=torch.int32)
