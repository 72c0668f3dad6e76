"""In which order all cells of an analysis see the samples of a split, and when they are looked at.

Samples are put into strata by how hard the dense network finds them. In the order, the *stream*,
every stratum has its turn all along, the hard ones more often at first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

CUTS = (0.02, 0.05, 0.10, 0.20, 0.35, 0.60)
"""Where samples that the dense network gets right are cut, by rising margin."""
RATES = (1.05, 2.2, 1.5, 1.4, 1.15, 1.15, 0.85, 0.6)
BENDS = (0.75, 0.85, 0.8, 0.9, 1.0, 1.1, 1.0, 1.0)
"""When the samples of each stratum come: at a time t of the stream, which runs from 0 to about 1,
it has given rate * t ** bend of its samples. Cells that change little are measured by a few samples
of the hard strata, and stop early; those that change much need the strata as they are."""
STRATA = len(RATES)
PREVIEW = 32
"""The samples behind a preview: the first look."""
_GROWTH, _STEP = 1.08, 64
"""By how much the samples grow from look to look: the factor, and the least."""


def strata_of(hardness: Numbers, wrong: NDArray[np.bool_] | None = None) -> NDArray[np.intp]:
    """The stratum of each sample [samples], 0 the hardest.

    `hardness`: the higher the harder (minus the margin between the two largest logits, or the
    loss). `wrong`: samples that the dense network gets wrong; they are stratum 0, and the others
    are cut by rank at `CUTS`. Without it, all samples are cut so, the first cut twice. NaN is
    hardest.
    """
    count = len(hardness)
    found = np.zeros(count, dtype=np.intp)
    rest = np.arange(count) if wrong is None else np.flatnonzero(~wrong)
    hard = np.where(np.isnan(hardness[rest]), np.inf, hardness[rest])
    ranked = rest[np.argsort(-hard, kind="stable")]
    if wrong is None:
        bounds = (0.01, *CUTS)
        place = (np.arange(len(ranked)) + 0.5) / max(1, len(ranked))
        found[ranked] = np.searchsorted(bounds, place)
    else:
        place = (np.arange(len(ranked)) + 0.5) / max(1, len(ranked))
        found[ranked] = 1 + np.searchsorted(CUTS, place)
    return found


def stream_order(
    members: NDArray[np.intp],
    seed: int,
    first: NDArray[np.intp] | None = None,
    rates: Sequence[float] = RATES,
    bends: Sequence[float] = BENDS,
) -> NDArray[np.intp]:
    """All samples [samples] in the order in which cells see them.

    `first` come first, as they are: a preview's, drawn before the strata were known. Within a
    stratum the order is random. At any time each stratum has given the share of its samples that
    its rate and its bend say, until it has none left, so that every beginning of the stream is a
    stratified sample.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    due = np.empty(len(members))
    for stratum, (rate, bend) in enumerate(zip(rates, bends, strict=True)):
        own = np.flatnonzero(members == stratum)
        turn = (generator.permutation(len(own)) + generator.random()) / max(1, len(own))
        due[own] = (turn / rate) ** (1 / bend)
    if first is not None:
        due[first] = np.arange(len(first)) - len(first)
    return np.argsort(due, kind="stable")


def random_order(samples: int, seed: int) -> NDArray[np.intp]:
    """A simple random order of all samples, for intervals that rest on nothing else."""
    return np.random.Generator(np.random.PCG64([seed, 2])).permutation(samples)


def first_samples(
    labels: NDArray[Any] | None, samples: int, count: int, seed: int
) -> NDArray[np.intp]:
    """`count` samples drawn at random for a preview, classes in proportion where there are labels.

    `labels` [samples] are classes, None where samples have no single class.
    """
    generator = np.random.Generator(np.random.PCG64([seed, 1]))
    shuffled = generator.permutation(samples)
    if labels is None:
        return shuffled[:count]
    # A systematic draw along the classes: as proportional as whole samples can be.
    by_class = shuffled[np.argsort(np.asarray(labels)[shuffled], kind="stable")]
    places = (np.arange(count) + generator.random()) * samples / count
    return generator.permutation(by_class[places.astype(np.intp)])


def looks_of(samples: int, fixed_batch: int | None = None) -> tuple[int, ...]:
    """The numbers of samples at which cells are looked at, ascending; the last is all of them.

    They depend on the size of the split alone. With a `fixed_batch` all but the last are multiples
    of it.
    """
    step = fixed_batch or 1
    looks: list[int] = []
    at = PREVIEW
    while at < samples:
        rounded = -(-at // step) * step
        if rounded < samples and (not looks or rounded > looks[-1]):
            looks.append(rounded)
        at = at * 2 if at < 256 else max(at + _STEP, int(at * _GROWTH) // _STEP * _STEP)
    return (*looks, samples)
