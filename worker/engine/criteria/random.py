"""Uniform random scores: what any criterion has to beat."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from app.domain.criteria import CRITERIA
from worker.engine.criteria.base import Criterion, Removal, Subject
from worker.engine.criteria.ranks import ranked


class Random(Criterion):
    """Entries leave in an order drawn by lot."""

    facts = CRITERIA["random"]

    def removal(self, subject: Subject) -> Removal:
        return Removal(ranked(random_scores(subject.weight.shape, subject.unit.id, subject.seed)))


def random_scores(shape: Sequence[int], unit: str, seed: int) -> Tensor:
    """Uniform float64 scores in [0, 1) of `shape`.

    They depend on the seed and the unit's id only, so that a unit gets the same scores whichever
    other units are pruned beside it. numpy's PCG64 stream is the same on every version and machine.
    """
    digest = hashlib.sha256(f"{seed}\0{unit}".encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
    return torch.from_numpy(generator.random(tuple(shape)))
