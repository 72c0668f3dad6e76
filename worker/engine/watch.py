"""What one pass shows of its cells, batch by batch, as sums by stratum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.domain.adaptive import STRATA
from worker.engine.cell_run import CellRun
from worker.engine.objectives import Judged
from worker.engine.passes import Job
from worker.engine.stream import DenseBatch, right_of

_PARTS = ("d", "l", "k")


class Watch:
    """Adds up what one job shows of its runs, a row each."""

    def __init__(self, job: Job, runs: Sequence[CellRun], scale: float, keep: bool) -> None:
        self.job = job
        self.batch: DenseBatch | None = None
        self._runs = runs
        self._scale = scale
        self._n = np.zeros(STRATA)
        self._sums = np.zeros((len(runs), 2 * len(_PARTS), STRATA))
        self._hits: list[list[np.ndarray]] = [[] for _ in runs]
        self._early: list[list[np.ndarray]] | None = [[] for _ in runs] if keep else None
        job.observe = self._see

    def _see(self, first: int, judged: Judged) -> None:
        batch = self.batch
        assert batch is not None
        rows, samples = judged.losses.shape
        shown = np.zeros((rows, 2, len(_PARTS), samples))
        with np.errstate(all="ignore"):
            if judged.hits is not None:
                shown[:, 0, 0] = batch.right - right_of(judged.hits)
            shown[:, 0, 1] = judged.losses - batch.losses
            if judged.divergences is not None:
                shown[:, 0, 2] = judged.divergences
            shown[:, 0] *= self._scale
            np.square(shown[:, 0], out=shown[:, 1])
            found = shown.reshape(rows, -1, samples) @ batch.onehot
            self._sums[first : first + rows] += found
        if first == 0:
            self._n += batch.onehot.sum(axis=0)
        for row in range(rows):
            if judged.hits is not None and self._runs[first + row].hits is not None:
                self._hits[first + row].append(judged.hits[row])
            if self._early is not None:
                self._early[first + row].append(shown[row, 0])

    def finish(self, seen: int) -> None:
        """Hand over to the runs, which have now seen so many samples."""
        for row, run in enumerate(self._runs):
            found = self.job.tally.evaluation(row)
            sums, more = run.sums, self._sums[row]
            with np.errstate(all="ignore"):
                for at, part in enumerate(_PARTS):
                    setattr(sums, part, getattr(sums, part) + more[at])
                    squares = getattr(sums, part + "2") + more[len(_PARTS) + at]
                    setattr(sums, part + "2", squares)
            sums.n = sums.n + self._n
            sums.lost += found.lost or 0
            sums.gained += found.gained or 0
            run.take(seen, self.job.tally.state(row), self._hits[row])
            if self._early is not None:
                run.preview = tuple(np.concatenate(self._early[row], axis=1))
