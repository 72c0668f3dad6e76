"""Data sets: what an upload holds, and its splits as memory-mapped batches.

Every format comes down to named arrays: mapped where they lie in the upload (plain `.npz`,
`.safetensors`), or unpacked once into a prepared file (packed `.npz`, images, tables). From there
on there is one road: which rows are train, tune and test, checks, and batches read by rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.domain.errors import InvalidFile, NotFound
from app.domain.metrics import Task
from worker.engine.fit import check_fit
from worker.engine.formats import dataset_checks as checks
from worker.engine.formats import splitting
from worker.engine.formats.dataset_info import DatasetInfo, describe
from worker.engine.formats.dataset_labels import read_labels
from worker.engine.formats.dataset_options import ArrayOptions, Options, TokenOptions, read_options
from worker.engine.formats.dataset_sniff import sniff_dataset
from worker.engine.formats.dataset_transforms import read_transform
from worker.engine.formats.label_rows import Labels, rows_at
from worker.engine.formats.prepared import PreparedFile, Said
from worker.engine.formats.preparing import open_mapped, prepare
from worker.engine.formats.sources import Source, digest_of
from worker.engine.formats.splits import Batch, Split, Transform
from worker.engine.formats.tokens import check_tokens, read_text

__all__ = [
    "Batch",
    "Dataset",
    "DatasetInfo",
    "Split",
    "check_fit",
    "inspect_dataset",
    "open_dataset",
]

PREPARED = "prepared"


class Dataset:
    """An opened data set. Arrays are read from disk when a batch asks for them."""

    def __init__(self, source: Source, info: DatasetInfo, splits: dict[str, Split]) -> None:
        self.info = info
        self._source = source
        self._splits = splits
        self._unpacked: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file; batches of splits still at hand stay readable."""
        self._source.close()
        if self._unpacked is not None:
            self._unpacked.cleanup()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._splits)

    def split(self, name: str) -> Split:
        """The split of this name. Raises NotFound if the data set hasn't got it."""
        if name not in self._splits:
            raise NotFound(
                f"The data set has no {name} split; it has {', '.join(self._splits)}.",
                f"Upload a file with x_{name} and y_{name}, or with x and y.",
            )
        return self._splits[name]


def open_dataset(
    path: Path,
    task: str = "classification",
    options: Mapping[str, Any] | None = None,
    *,
    prepared: Path | None = None,
    seed: int = 0,
) -> Dataset:
    """Opens a data set that was imported with the same task and options, and makes its splits.

    `prepared` is the file that `inspect_dataset` left, if it left one; without it, what has to be
    unpacked is unpacked into a temporary folder that lives as long as the result. `seed` decides
    the splits that the server makes and nothing else; keep it the same for one data set, or test
    samples leak into training.

    Raises InvalidFile, UnsafeFile, StorageFull; InvalidInput for a wrong task or option.
    """
    form = sniff_dataset(path)
    read = read_options(form, task, options)
    if prepared is not None:
        return _open(PreparedFile(prepared), form, task, read, seed)
    source = open_mapped(path, form, task)
    if source is not None:
        return _open(source, form, task, read, seed)
    folder = tempfile.TemporaryDirectory(prefix="prunescope-data-")
    try:
        target = Path(folder.name) / PREPARED
        prepare(path, form, task, read, target, seed)
        dataset = _open(PreparedFile(target), form, task, read, seed)
    except BaseException:
        folder.cleanup()
        raise
    dataset._unpacked = folder
    return dataset


def inspect_dataset(
    path: Path,
    task: str = "classification",
    options: Mapping[str, Any] | None = None,
    *,
    folder: Path | None = None,
    seed: int = 0,
) -> DatasetInfo:
    """The full check when a file arrives: all of `open_dataset`, and every value is read once.

    What has to be unpacked is left as `folder / "prepared"` for later openings.
    Raises InvalidFile with one sentence for the first fault found; InvalidInput with `fields` for
    a wrong task or option; StorageFull.
    """
    form = sniff_dataset(path)
    read = read_options(form, task, options)
    source = open_mapped(path, form, task)
    target = None
    if source is None and folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / PREPARED
        target.unlink(missing_ok=True)
        prepare(path, form, task, read, target, seed)
        source = PreparedFile(target)
    try:
        opened = (
            open_dataset(path, task, options, seed=seed)
            if source is None
            else _open(source, form, task, read, seed)
        )
        with opened as dataset:
            _check_content(dataset)
            return dataset.info
    except BaseException:
        if target is not None:
            target.unlink(missing_ok=True)
        raise


def _check_content(dataset: Dataset) -> None:
    source, task = dataset._source, dataset.info.task
    contents = checks.find_arrays(source, task)
    for names in contents.x.values():
        for number, name in enumerate(names):
            source.verify(name)
            checks.check_values(name, source.array(name))
            if task == Task.LANGUAGE_MODELLING and number == 0:
                check_tokens(name, source.array(name))
    for name in contents.y.values():
        source.verify(name)


def _open(source: Source, form: str, task: str, options: Options, seed: int) -> Dataset:
    try:
        return _assemble(source, form, task, options, seed)
    except BaseException:
        source.close()
        raise


def _assemble(source: Source, form: str, task: str, options: Options, seed: int) -> Dataset:
    said = source.said if isinstance(source, PreparedFile) else Said(form)
    if said.format != form:
        raise InvalidFile(
            "The unpacked data set belongs to another file.", "Import the data set again."
        )
    contents = checks.find_arrays(source, task)
    checks.check_headers(source, contents, task)
    notes = [*said.notes, *contents.notes]
    transforms: list[Transform] = []
    for number in range(contents.inputs):
        transform, remarks = read_transform(source, contents, number)
        transforms.append(transform)
        notes += remarks
    arrays, labels, in_order = _parts(source, contents, task, options, notes)
    _check_alike(contents, labels)
    sizes = {part: len(values) for part, values in labels.items()}
    strata = {
        part: _strata(labels[part], task, in_order) for part in sizes if part in ("", "train")
    }
    called = {"train": "train", "tune": "a folder val"} if form == "images" else None
    rows = splitting.choose_rows(sizes, strata, seed, notes, called)
    splits = {
        name: Split(
            name=name,
            labels=rows_at(labels[part], index),
            arrays=arrays[part],
            transforms=tuple(transforms),
            index=index,
            content=partial(_digests, arrays[part]),
            task=str(task),
        )
        for name, (part, index) in rows.items()
    }
    stored = {n: source.header(n).stored for names in contents.x.values() for n in names}
    notes += _type_notes(contents, stored)
    first = next(iter(contents.x.values()))
    info = describe(splits, [stored[n] for n in first], task, said, options, notes)
    if isinstance(source, PreparedFile):
        info = replace(info, prepared=True)
    return Dataset(source, info, splits)


def _parts(
    source: Source,
    contents: checks.Contents,
    task: str,
    options: Options,
    notes: list[str],
) -> tuple[dict[str, tuple[Any, ...]], dict[str, Labels], bool]:
    """Inputs and labels of every part of the file, and whether the parts are running texts."""
    if task == Task.LANGUAGE_MODELLING:
        told = options if isinstance(options, TokenOptions) else TokenOptions()
        texts = read_text(source, contents, told, notes)
        return (
            {part: text.arrays for part, text in texts.items()},
            {part: text.labels for part, text in texts.items()},
            all(text.is_stream for text in texts.values()),
        )
    form = options.labels if isinstance(options, ArrayOptions) else None
    labels: dict[str, Labels] = {}
    for part, name in contents.y.items():
        labels[part], remarks = read_labels(source, name, task, form)
        notes += remarks
    arrays = {part: tuple(source.array(n) for n in names) for part, names in contents.x.items()}
    return arrays, labels, False


def _check_alike(contents: checks.Contents, labels: Mapping[str, Labels]) -> None:
    """All parts are labelled in one way."""
    (first, one), *others = labels.items()
    for part, values in others:
        if values.shape[1:] != one.shape[1:] or (values.dtype.kind in "iu") != (
            one.dtype.kind in "iu"
        ):
            names = [contents.y.get(p) or contents.x[p][0] for p in (first, part)]
            raise InvalidFile(
                f"{names[0]} and {names[1]} are not labelled alike: {_look(one)} and "
                f"{_look(values)}.",
                "All splits must have labels of one shape and kind.",
            )


def _look(labels: Labels) -> str:
    return f"{labels.dtype} of the shape {labels.shape}"


def _strata(labels: Labels, task: str, in_order: bool) -> splitting.Strata:
    if in_order:
        return splitting.in_order()
    if task == Task.REGRESSION and labels.size == len(labels):
        return splitting.by_target(np.asarray(labels).reshape(-1))
    if task == Task.CLASSIFICATION and labels.ndim == 1:
        return splitting.by_class(np.asarray(labels))
    return splitting.at_random(len(labels))


def _type_notes(contents: checks.Contents, stored: Mapping[str, str]) -> list[str]:
    notes = []
    for names in zip(*contents.x.values(), strict=True):
        if len({stored[name] for name in names}) > 1:
            listed = ", ".join(f"{name} {stored[name]}" for name in names)
            notes.append(f"The splits differ in type ({listed}); are they scaled alike?")
    return notes


def _digests(arrays: Sequence[Any]) -> list[str]:
    return [digest_of(array) for array in arrays]
