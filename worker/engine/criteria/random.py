"""Uniform random scores: what any criterion has to beat."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor


def score(weight: Tensor, *, unit: str, seed: int) -> Tensor:
    """Uniform float64 scores in [0, 1), in the shape of `weight`.

    They depend on the seed and the unit's id only, so that a unit gets the same scores whichever
    other units are pruned beside it. numpy's PCG64 stream is the same on every version and machine.
    """
    digest = hashlib.sha256(f"{seed}\0{unit}".encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
    return torch.from_numpy(generator.random(tuple(weight.shape)))
