"""Which rows are train, tune and test: as the file says, and cut by the server where it is silent.

A file with `x` alone is cut 60/20/20; one with train and test has tune cut from train. What is cut
keeps the proportions of the classes (of the target's deciles in a regression). The windows of one
long text are cut in order, so that no test window lies between two that were trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from app.domain.errors import InvalidFile
from worker.engine.formats.dataset_checks import SPLITS
from worker.engine.formats.splits import stratified_take

HELD_OUT = 0.2
MAX_TUNE_CUT = 10_000
BINS = 10

Rows = dict[str, tuple[str, np.ndarray | None]]


@dataclass(frozen=True)
class Strata:
    """How rows are chosen: `groups` gives the group of each row, None takes them in order."""

    groups: np.ndarray | None
    how: str

    def take(self, rows: np.ndarray, total: int, seed: int) -> np.ndarray:
        """About `total` of `rows` (ascending), which are left in order too."""
        if self.groups is None:
            return rows[len(rows) - min(total, len(rows) - 1) :] if len(rows) else rows
        return stratified_take(self.groups[rows], rows, total, seed)


def by_class(labels: np.ndarray) -> Strata:
    return Strata(labels, "by class")


def at_random(samples: int) -> Strata:
    return Strata(np.zeros(samples, np.int64), "at random")


def in_order() -> Strata:
    return Strata(None, "in order, as the text runs")


def by_target(values: np.ndarray) -> Strata:
    """Rows grouped by the deciles of one number each, equal numbers in one group."""
    bins = min(BINS, max(1, len(values) // BINS))
    edges = np.quantile(values, np.arange(1, bins) / bins)
    return Strata(np.searchsorted(edges, values, side="right").astype(np.int64), "by the target")


def choose_rows(
    sizes: Mapping[str, int],
    strata: Mapping[str, Strata],
    seed: int,
    notes: list[str],
    names: Mapping[str, str] | None = None,
) -> Rows:
    """For each split: the part of the file it comes from, and its rows there (None: all).

    `sizes` are the samples of each part; "" is a part that is to be cut in three. `names` says how
    the parts are called in sentences (`x_train` where nothing else is said).
    Raises InvalidFile if there are too few samples to cut.
    """
    called = {"train": "x_train", "tune": "x_tune and y_tune"} | dict(names or {})
    if "" in sizes:
        return _thirds(sizes[""], strata[""], seed, notes, called["tune"])
    if "tune" in sizes:
        return {name: (name, None) for name in SPLITS if name in sizes}
    total, cut = sizes["train"], strata["train"]
    everything = np.arange(total)
    tune = cut.take(everything, min(round(HELD_OUT * total), MAX_TUNE_CUT), seed)
    if not len(tune):
        raise InvalidFile(
            f"The {total} samples of {called['train']} are too few to cut tune from them.",
            f"Add {called['tune']}, or more samples of each class.",
        )
    train = np.setdiff1d(everything, tune, assume_unique=True)
    notes.append(
        f"tune was cut from train, {cut.how}: {len(tune):,} of {total:,} samples. A network"
        f" trained on them looks better there than it is; bring {called['tune']} to avoid that."
    )
    return {"train": ("train", train), "tune": ("train", tune), "test": ("test", None)}


def _thirds(total: int, cut: Strata, seed: int, notes: list[str], tune: str) -> Rows:
    everything = np.arange(total)
    held_out = round(HELD_OUT * total)
    test = cut.take(everything, held_out, 2 * seed)
    rest = np.setdiff1d(everything, test, assume_unique=True)
    tune = cut.take(rest, held_out, 2 * seed + 1)
    train = np.setdiff1d(rest, tune, assume_unique=True)
    if not (len(test) and len(tune)):
        few = "1 sample is" if total == 1 else f"{total} samples are"
        raise InvalidFile(
            f"{few} too few to be split into train, tune and test.",
            f"Give more samples (several of each class), or split them yourself: bring {tune}.",
        )
    notes.append(
        f"Split here, {cut.how}: {len(train):,} train, {len(tune):,} tune, {len(test):,} test."
    )
    return {"train": ("", train), "tune": ("", tune), "test": ("", test)}
