"""Stored uploads, opened: what every computing task starts from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from app.domain.errors import InvalidInput
from worker.engine.formats.datasets import Dataset, Split, check_fit, open_dataset
from worker.engine.formats.pt2 import load_model
from worker.engine.formats.sniff import sniff_model_format
from worker.engine.graph import CanonicalModel
from worker.engine.units import Unit, weight_units


@dataclass(frozen=True)
class Opened:
    """A model and a data set that fit each other."""

    model: CanonicalModel
    dataset: Dataset

    @cached_property
    def units(self) -> list[Unit]:
        return weight_units(self.model)

    def unit_ids(self, chosen: list[str] | None) -> list[str]:
        """The prunable units, in network order; only the `chosen` ones when given."""
        prunable = [unit.id for unit in self.units if unit.prunable]
        if chosen is None:
            return prunable
        wanted = set(chosen)
        return [unit for unit in prunable if unit in wanted]

    def split(self, name: str) -> Split:
        """Raises InvalidInput when the data set has no such split."""
        if not self.dataset.info.splits.get(name):
            raise InvalidInput(
                f"The data set has no samples in its {name} split.",
                f"Upload it again with x_{name} and y_{name}, or with x and y alone: they are "
                "then split into train, tune and test.",
            )
        return self.dataset.split(name)


def open_files(
    model_path: Path, dataset_path: Path, task: str = "classification", cache: Path | None = None
) -> Opened:
    """Read both files and check that they fit. Raises InvalidFile or InputMismatch."""
    model = load_model(model_path, sniff_model_format(model_path))
    dataset = open_dataset(dataset_path, task, cache_dir=cache)
    check_fit(model, dataset)
    return Opened(model, dataset)
