"""What one pass shows of its cells, batch by batch, as sums by stratum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.domain.adaptive import Sums
from app.domain.stream_order import STRATA
from worker.engine.cell_run import CellRun
from worker.engine.objectives import Judged
from worker.engine.passes import Job
from worker.engine.stream import DenseBatch, right_of

_PARTS = ("d", "l", "k")
_SUMMED = (*_PARTS, *(part + "2" for part in _PARTS))


class Watch:
    """Goes on with the sums of runs that have seen the same samples, a row of one job each.

    Sums grow batch by batch, whatever passes the batches come in, so that they have the same bits
    however often a run was interrupted. `scale`: of a sample's drop, rise and divergence. `keep`:
    hand over what each sample showed too, for sums whose strata are not known yet.
    """

    def __init__(self, job: Job, runs: Sequence[CellRun], scale: float, keep: bool) -> None:
        self.job = job
        self.batch: DenseBatch | None = None
        self._runs = runs
        self._scale = scale
        self._n = np.zeros(STRATA)
        self._sums = np.array([[getattr(run.sums, part) for part in _SUMMED] for run in runs])
        self._hits: list[list[np.ndarray]] = [[] for _ in runs]
        self._early: list[list[np.ndarray]] | None = [[] for _ in runs] if keep else None
        job.observe = self._see

    def _see(self, first: int, judged: Judged) -> None:
        batch = self.batch
        assert batch is not None
        rows, samples = judged.losses.shape
        shown = np.zeros((rows, len(_PARTS), samples))
        with np.errstate(all="ignore"):
            if judged.hits is not None:
                shown[:, 0] = batch.right - right_of(judged.hits)
            shown[:, 1] = judged.losses - batch.losses
            if judged.divergences is not None:
                shown[:, 2] = judged.divergences
            self._sums[first : first + rows] += by_stratum(shown, self._scale, batch.onehot)
        if first == 0:
            self._n += batch.onehot.sum(axis=0)
        for row in range(rows):
            if judged.hits is not None and self._runs[first + row].hits is not None:
                self._hits[first + row].append(judged.hits[row])
            if self._early is not None:
                self._early[first + row].append(shown[row])

    def finish(self, seen: int) -> None:
        """Hand over to the runs, which have now seen so many samples."""
        for row, run in enumerate(self._runs):
            found = self.job.tally.evaluation(row)
            put(run.sums, self._sums[row])
            run.sums.n = run.sums.n + self._n
            run.sums.lost, run.sums.gained = found.lost or 0, found.gained or 0
            run.take(seen, self.job.tally.state(row), self._hits[row])
            if self._early is not None:
                run.preview = self._early[row]


def by_stratum(shown: np.ndarray, scale: float, onehot: np.ndarray) -> np.ndarray:
    """Sums and sums of squares [rows, 2 * parts, strata] of what samples show, times `scale`.

    `shown` [rows, parts, samples], `onehot` [samples, strata].
    """
    rows, _, samples = shown.shape
    with np.errstate(all="ignore"):
        scaled = shown * scale
        both = np.stack([scaled, np.square(scaled)], axis=1)
        return both.reshape(rows, -1, samples) @ onehot


def put(sums: Sums, found: np.ndarray) -> None:
    """Replace sums by those found, in the order of `by_stratum`."""
    for part, values in zip(_SUMMED, found, strict=True):
        setattr(sums, part, values.copy())


def sums_of_preview(run: CellRun, members: np.ndarray, scale: float) -> Sums:
    """A preview's sums, now that the stratum of each of its samples is known.

    `members` [samples] are those of the stream. Bit for bit what they would have been.
    """
    assert run.preview is not None
    sums = Sums(lost=run.sums.lost, gained=run.sums.gained)
    total, at, identity = np.zeros((len(_SUMMED), STRATA)), 0, np.eye(STRATA)
    for shown in run.preview:
        onehot = identity[members[at : at + shown.shape[1]]]
        total += by_stratum(shown[None], scale, onehot)[0]
        sums.n += onehot.sum(axis=0)
        at += shown.shape[1]
    put(sums, total)
    return sums
