"""Uploaded files, opened: what every recipe that runs a network starts from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from app.domain.errors import InvalidInput
from worker.engine.fit import check_fit
from worker.engine.formats.datasets import Dataset, Split, open_dataset
from worker.engine.formats.models import open_model
from worker.engine.graph import CanonicalModel
from worker.engine.units import Unit, weight_units
from worker.inside.job import InsideJob


@dataclass(frozen=True)
class Opened:
    """A model and a data set that fit each other."""

    model: CanonicalModel
    dataset: Dataset

    @cached_property
    def units(self) -> list[Unit]:
        return weight_units(self.model)

    def split(self, name: str) -> Split:
        """Raises NotFound when the data set has no such split."""
        return self.dataset.split(name)


def open_network(job: InsideJob) -> CanonicalModel:
    """The network in the file `model`. Raises InvalidFile, and InvalidInput for weights alone."""
    model = open_model(job.files["model"], folder=job.folder).model
    if model is None:
        raise InvalidInput(
            "This file holds weights only, so there is no network to run.",
            "Upload it again and name its architecture, or export the network as .pt2.",
        )
    return model


def open_both(job: InsideJob) -> Opened:
    """The files `model` and `dataset` (with `prepared`, where there is one), which fit each other.

    Arguments `task`, `options`. Raises InvalidFile or InputMismatch.
    """
    model = open_network(job)
    dataset = open_dataset(
        job.files["dataset"],
        job.arguments["task"],
        job.arguments["options"],
        prepared=job.files.get("prepared"),
    )
    check_fit(model, dataset)
    return Opened(model, dataset)
