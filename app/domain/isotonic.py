"""The rising curve that fits measured points best: removing more never makes a network better."""

from __future__ import annotations

from collections.abc import Sequence


def isotonic_fit(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The non-decreasing sequence that minimises `sum(weights * (fit - values)**2)`.

    By pooling adjacent violators (Ayer, Brunk, Ewing, Reid and Silverman 1955; Barlow, Bartholomew,
    Bremner and Brunk 1972), in one pass. `values` and `weights` [points], weights above 0; raises
    ValueError when they are of two lengths.
    """
    blocks: list[tuple[float, float, int]] = []  # mean, weight, points
    for value, weight in zip(values, weights, strict=True):
        mean, total, count = value, weight, 1
        while blocks and blocks[-1][0] >= mean:
            before, heavy, more = blocks.pop()
            mean = (mean * total + before * heavy) / (total + heavy)
            total, count = total + heavy, count + more
        blocks.append((mean, total, count))
    return [mean for mean, _, count in blocks for _ in range(count)]
