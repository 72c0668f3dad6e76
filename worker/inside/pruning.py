"""A plan's pruning, as a recipe's arguments say it: which weights leave, and the network without.

Measuring, exporting and retraining all go this way, so that they speak of the same network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from app.domain.errors import NotFound
from app.domain.words import SplitName
from worker.engine.baselines import baseline_masks
from worker.engine.criteria import get_criterion
from worker.engine.formats.datasets import Dataset, Split
from worker.engine.graph import CanonicalModel
from worker.engine.masks import MaskSet
from worker.engine.recalibration import Statistics, recalibrate
from worker.engine.units import Unit
from worker.inside.job import InsideJob


def masks_of(
    model: CanonicalModel,
    units: Sequence[Unit],
    pruning: Mapping[str, Any],
    train: Split | None = None,
    job: InsideJob | None = None,
) -> MaskSet:
    """The masks of `{sparsities: {unit: fraction}, criterion, seed}`, or of a baseline to it.

    With `baseline` (a name) as many weights leave in all, chosen in that simpler way. `train` as
    `learning_split` gives it: criteria see the same samples of it as in the analysis, and so remove
    the same entries. Where a criterion changes what stays, each unit is changed by the inputs that
    it has in the dense network. Call it on the dense network. Raises InvalidInput for a plan that
    doesn't fit the units or that the criterion has no order for.
    """
    sparsities, seed = pruning["sparsities"], pruning["seed"]
    if pruning.get("baseline") is not None:
        return baseline_masks(pruning["baseline"], model, units, sparsities, seed)
    stop = None if job is None else job.should_stop
    return MaskSet.from_plan(model, units, sparsities, pruning["criterion"], seed, train, stop)


def learning_split(dataset: Dataset, pruning: Mapping[str, Any]) -> Split | None:
    """The split `train`, where the plan's criterion learns from it and the data set has one."""
    if pruning.get("baseline") is not None:
        return None
    if not get_criterion(pruning["criterion"]).statistics:
        return None
    return train_of(dataset)


def train_of(dataset: Dataset) -> Split | None:
    """The split `train`, None where the data set has none."""
    try:
        return dataset.split(SplitName.TRAIN)
    except NotFound:
        return None


@dataclass(frozen=True)
class Norms:
    """Batch norms re-estimated as in the plan's analysis; they stay as they are without `train`."""

    train: Split | None
    seed: int
    job: InsideJob

    def re_estimated(self, model: CanonicalModel) -> Statistics:
        """Estimate them in the network as it is now; what comes back is in force."""
        if self.train is None:
            return Statistics([], [])
        return recalibrate(model, self.train, seed=self.seed, should_stop=self.job.should_stop)


def norms_of(job: InsideJob, dataset: Dataset | None, pruning: Mapping[str, Any]) -> Norms:
    """What the argument `pruning` asks of batch norms. Raises NotFound without training samples."""
    seed = pruning.get("calibration_seed")
    if seed is None or dataset is None:
        return Norms(None, 0, job)
    return Norms(dataset.split(SplitName.TRAIN), seed, job)


@contextmanager
def dense_network(model: CanonicalModel, norms: Norms) -> Iterator[CanonicalModel]:
    """The dense network as the plan's analysis saw it, for the time of a block."""
    with norms.re_estimated(model):
        yield model


@contextmanager
def pruned_network(model: CanonicalModel, masks: MaskSet, norms: Norms) -> Iterator[CanonicalModel]:
    """The network as it is with a plan's weights gone, for the time of a block.

    What is measured inside is what a checkpoint holds. Every weight and statistic has its old bits
    back at the end.
    """
    with masks.applied(model), norms.re_estimated(model):
        yield model
