"""In which order a split is seen: the few samples of a preview first, then the strata."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from app.domain.adaptive import Strata
from app.domain.metrics import Kind
from app.domain.stream_order import PREVIEW, STRATA, first_samples, random_order
from worker.engine.dense_seen import DenseSeen
from worker.engine.formats.splits import Split
from worker.engine.objectives import Objective, SingleLabel
from worker.engine.stream import Stream, sizes_of


@dataclass
class SampleOrder:
    """The streams of one analysis, all with the same first samples.

    `at_random`: a simple random order in the place of a stratified one. `batch_size` and
    `fixed_batch` (of a network that takes no other) are samples.
    """

    split: Split
    objective: Objective
    samples: int
    seed: int
    batch_size: int
    fixed_batch: int | None
    at_random: bool

    @cached_property
    def first(self) -> np.ndarray:
        """Rows of the split that a preview sees, whole batches where these are fixed."""
        fixed = self.fixed_batch or 1
        count = min(self.samples, -(-PREVIEW // fixed) * fixed)
        if self.at_random:
            return random_order(self.samples, self.seed)[:count]
        labels = None
        if isinstance(self.objective, SingleLabel):
            labels = np.asarray(self.split.labels)
        return first_samples(labels, self.samples, count, self.seed)

    @property
    def score(self) -> str:
        """What drops are of, as `Strata.score`."""
        kind = self.objective.kind
        return "loss" if kind in (Kind.REGRESSION, Kind.LANGUAGE_MODELLING) else "answers"

    @cached_property
    def loss_scale(self) -> float:
        """1 / variance of a regression's labels, so that drops are of R²; else 1."""
        if self.objective.kind is not Kind.REGRESSION:
            return 1.0
        total = squares = count = 0.0
        for start in range(0, self.samples, self.batch_size):
            values = self.split.labels[start : start + self.batch_size].astype(np.float64)
            total, squares = total + values.sum(), squares + (values * values).sum()
            count += values.size
        variance = squares / count - (total / count) ** 2
        return 1.0 / variance if variance > 0 else 1.0

    def of_preview(self) -> Stream:
        """The first samples, before anything is known of the split."""
        return self._stream(np.zeros(self.samples, dtype=np.intp), _one_stratum(self.samples))

    def of_split(self, seen: DenseSeen) -> Stream:
        """All samples, by what the dense network made of them."""
        members = seen.members()
        strata = Strata(
            sizes_of(members),
            scale=self.samples / max(1.0, seen.answers),
            score=self.score,
            loss_scale=self.loss_scale,
            apart=seen.apart,
        )
        return self._stream(members, strata)

    def preview_strata(self, scale: float) -> Strata:
        """What a preview's sums are of: a split in one stratum. `scale`: samples an answer."""
        known = {"scale": scale, "score": self.score, "loss_scale": self.loss_scale}
        return replace(_one_stratum(self.samples), **known)

    def _stream(self, members: np.ndarray, strata: Strata) -> Stream:
        return Stream.of(
            self.split,
            members,
            strata,
            seed=self.seed,
            first=self.first,
            batch_size=self.batch_size,
            fixed_batch=self.fixed_batch,
            at_random=self.at_random,
        )


def _one_stratum(samples: int) -> Strata:
    return Strata((samples, *[0] * (STRATA - 1)))
