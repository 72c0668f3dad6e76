"""Stored uploads as files and arguments of recipes. What is in them is for recipes only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

from app.domain.cells import dataset_key
from app.domain.errors import InvalidInput
from app.store import blobs
from app.store.blobs import Blobs
from app.store.tables import Dataset, Model
from worker.context import JobContext
from worker.sandbox.running import OnMessage
from worker.sandbox.walls import Limits, Result, take_file
from worker.tasks.descriptions import ImportedDataset
from worker.tasks.reports import unexpected

IMPORT_SECONDS = 600.0
"""A file can ask for work without end; nobody would use a network or a data set that slow."""
DATASETS = "datasets"
PREPARED = "prepared"


def require_network(row: Model) -> None:
    """Raises InvalidInput for a file of weights alone."""
    if (row.details or {}).get("kind") == "weights":
        raise InvalidInput(
            f"{row.name!r} holds weights only, so there is no network to run.",
            "Upload it again and name its architecture, or export the network as .pt2.",
        )


def network_sha256(row: Model) -> str:
    """The file that the network is read from: the upload, or what was made of its weights."""
    return row.derived_sha256 or row.sha256


def split_size(row: Dataset, split: str) -> int:
    """Samples of a split. Raises InvalidInput when the data set has no such split."""
    size = (row.splits or {}).get(split)
    if not size:
        raise InvalidInput(
            f"The data set has no samples in its {split} split.",
            f"Upload it again with x_{split} and y_{split}, or with x and y alone: they are "
            "then split into train, tune and test.",
        )
    return int(size)


def reading(row: Dataset) -> dict[str, Any]:
    """How the data set is to be read, as its uploader said: arguments of every recipe."""
    return {"task": row.task, "options": row.options or {}}


def unit_sizes(row: Model) -> dict[str, int]:
    """The prunable units, in network order, and how many weights each has."""
    units = (row.units or {}).get("weight", [])
    return {unit["id"]: unit["size"] for unit in units if unit["prunable"]}


class Reading(Protocol):
    """What reading uploads takes: a job's context, or a desk without a job."""

    @property
    def blobs(self) -> Blobs: ...

    def inside(
        self,
        recipe: str,
        arguments: Mapping[str, Any],
        files: Mapping[str, Path],
        on_message: OnMessage,
        *,
        limits: Limits | None = None,
    ) -> Result: ...

    def scratch(self, *parts: str) -> Path: ...


def files_of(context: Reading, model: Model, dataset: Dataset) -> dict[str, Path]:
    """The files of a recipe that runs `model` on `dataset`. Raises as `prepared_file`."""
    require_network(model)
    files = {
        "model": context.blobs.local_path(network_sha256(model)),
        "dataset": context.blobs.local_path(dataset.sha256),
    }
    if (dataset.details or {}).get(PREPARED):
        files[PREPARED] = prepared_file(context, dataset)
    return files


def prepared_place(context: Reading, row: Dataset) -> Path:
    return context.scratch(DATASETS, dataset_key(row.sha256, row.task, row.options)) / PREPARED


def prepared_file(context: Reading, row: Dataset) -> Path:
    """What the import unpacked of a data set; unpacked again when it is not on this machine."""
    place = prepared_place(context, row)
    if not place.exists():
        with inspected(context, row) as (result, info):
            if info.prepared:
                take_prepared(context, row, result)
    return place


@contextmanager
def inspected(context: Reading, row: Dataset) -> Iterator[tuple[Result, ImportedDataset]]:
    """A data set read from its first to its last sample, and what is in it.

    Raises InvalidFile with the sentence that names the fault.
    """
    files = {"dataset": context.blobs.local_path(row.sha256)}
    limits = Limits(seconds=IMPORT_SECONDS)
    with context.inside("import_dataset", reading(row), files, silence, limits=limits) as result:
        info = ImportedDataset.of(result.value)
        info.check(row.task)
        yield result, info


def take_prepared(context: Reading, row: Dataset, result: Result) -> None:
    place = prepared_place(context, row)
    take_file(result.folder, PREPARED, place, disk_bytes(place.parent))


def silence(kind: str, body: Mapping[str, Any], folder: Path) -> None:
    """For a recipe that has nothing to tell before its end."""
    raise unexpected(kind)


def disk_bytes(folder: Path) -> int:
    """More than this fits nowhere."""
    return shutil.disk_usage(folder).total


def settle(path: Path) -> None:
    """Get a file and its name onto the disk, for good."""
    for place in (path, path.parent):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def blob_of(context: JobContext, result: Result, name: str) -> Iterator[str]:
    """A file that a child made, as a blob: its sha256. It goes again unless the block succeeds."""
    folder = context.scratch("taken")
    taken = folder / token_hex(16)
    try:
        take_file(result.folder, name, taken, disk_bytes(folder))
        sha256, _ = context.blobs.put_file(taken)
    finally:
        taken.unlink(missing_ok=True)
    try:
        yield sha256
    except BaseException:
        blobs.drop_unreferenced(context.store, context.blobs, [sha256])
        raise
