"""Magnitude: small weights matter least (Han et al., 2015)."""

from __future__ import annotations

from torch import Tensor


def score(weight: Tensor, *, unit: str, seed: int) -> Tensor:
    """`abs(w)`, in the shape and dtype of `weight`."""
    return weight.detach().abs()
