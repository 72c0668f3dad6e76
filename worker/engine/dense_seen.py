"""What the dense run shows of each sample, from which strata and the stream follow."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from app.domain.stream_order import strata_of
from worker.engine.objectives import Judged, Objective, SingleLabel


class DenseSeen:
    """Collects batch by batch. `hits` [samples, ...]: the right answers, a part a batch; None where
    nothing is right or wrong, or where they are not kept."""

    def __init__(self, objective: Objective, keeps_hits: bool) -> None:
        self._objective = objective
        self._hardness: list[np.ndarray] = []
        self._wrong: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        self.hits: list[np.ndarray] | None = [] if keeps_hits else None

    def add(self, outputs: Tensor, labels: Tensor, judged: Judged) -> None:
        """Outputs [batch, ...] as the objective gives them, with their labels."""
        counts = self._objective.counts(labels)
        self._counts.append(counts)
        if isinstance(self._objective, SingleLabel) and outputs.shape[1] > 1:
            top = outputs.float().topk(2, dim=1).values
            self._hardness.append((top[:, 1] - top[:, 0]).numpy())
            assert judged.hits is not None
            self._wrong.append(~judged.hits[0])
        else:
            with np.errstate(all="ignore"):
                self._hardness.append(judged.losses[0] / np.maximum(1, counts))
        if judged.hits is None:
            self.hits = None
        elif self.hits is not None:
            self.hits.append(judged.hits[0])

    @property
    def apart(self) -> bool:
        """Whether the samples that are wrong have a stratum of their own."""
        return bool(self._wrong)

    @property
    def answers(self) -> float:
        """How many there are in all samples."""
        return float(sum(counts.sum() for counts in self._counts))

    def members(self) -> np.ndarray:
        """The stratum of each sample [samples]."""
        hardness = np.concatenate(self._hardness).astype(np.float64)
        return strata_of(hardness, np.concatenate(self._wrong) if self._wrong else None)

    def forget(self) -> None:
        """Drop what only `members` needs, once the stream is made."""
        self._hardness, self._wrong, self._counts = [], [], []
