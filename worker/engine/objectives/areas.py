"""AUROC from histograms of scores, so that no score has to be kept.

The area under the ROC curve is the chance that a positive sample has a higher score than a negative
one (Mann and Whitney; ties count half). Scores in the same bin are taken as tied, so the binned
value differs from the exact one by at most half of the share of pairs that fall into one bin.

Bins are as fine near 0 and 1 as their distance from there: eight an octave of min(p, 1 - p), down
to 2**-16, and one for all beyond. They are read off the bits of the float32, which costs next to
nothing. 256 bins in all.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BINS = 256
MOST_SCORES = 100
"""With more classes or labels than this there is no AUROC: its histograms would cost too much."""

_SHIFT = 20
_LOWEST = 1008 - 127  # the bits of 0.5 above the shift are 1008


def bins_of(probabilities: Tensor) -> Tensor:
    """The bin (int32, 0 to 255, growing with the probability) of each; of NaN, anything."""
    low = torch.minimum(probabilities, 1 - probabilities)
    found = low.view(torch.int32).bitwise_right_shift_(_SHIFT).clamp_(_LOWEST, _LOWEST + 127)
    found.sub_(_LOWEST)
    return torch.where(probabilities > 0.5, 255 - found, found)


def thresholds() -> np.ndarray:
    """The lower edges of the bins that have one, ascending, float32 [254 or so].

    A score belongs to the last bin whose edge it reaches. For comparing with other software.
    """
    bits = (np.arange(_LOWEST + 1, 1009, dtype=np.int32) << _SHIFT).view(np.float32)
    # Above one half 1 - p has to be below an edge for p to be in the next bin.
    above = np.nextafter(np.float32(1) - bits[:-1], np.float32(2), dtype=np.float32)[::-1]
    return np.concatenate([bits, above])


def area(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray | None:
    """AUROC of each of several scores from their counts [scores, BINS].

    None when one of them has no positive or no negative sample.
    """
    one, other = positives.sum(axis=1), negatives.sum(axis=1)
    if not (one.all() and other.all()):
        return None
    below = np.cumsum(negatives, axis=1, dtype=np.float64) - negatives
    wins = (positives * (below + negatives / 2)).sum(axis=1)
    return wins / (one.astype(np.float64) * other)
