"""Data sets: what an `.npz` holds, and its splits as memory-mapped batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.domain.errors import InvalidFile, InvalidInput, NotFound
from worker.engine.fit import check_fit
from worker.engine.formats import dataset_checks as checks
from worker.engine.formats.dataset_transforms import read_transform
from worker.engine.formats.npz import NpzFile
from worker.engine.formats.splits import Batch, Split, Transform, stratified_take

__all__ = [
    "Batch",
    "Dataset",
    "DatasetInfo",
    "Split",
    "check_fit",
    "inspect_dataset",
    "open_dataset",
]

HELD_OUT = 0.2
MAX_TUNE_CUT = 10_000


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set without its content.

    `input_shape` and `dtype` are those of the first input; `input_shapes` and `dtypes` of all.
    Shapes are of one sample in the network's layout. `counts` are samples of each class by split.
    """

    task: str
    splits: dict[str, int]
    input_shape: list[int]
    classes: int | None
    inputs: int
    dtype: str
    counts: dict[str, list[int]]
    notes: list[str] = field(default_factory=list)
    input_shapes: list[list[int]] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    transformed: list[bool] = field(default_factory=list)
    format: str = "npz"
    label_shape: list[int] = field(default_factory=list)
    label_dtype: str = "int64"
    class_names: list[str] = field(default_factory=list)
    feature_names: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    prepared: bool = False


class Dataset:
    """An opened data set. Arrays are read from disk when a batch asks for them."""

    def __init__(self, npz: NpzFile, info: DatasetInfo, splits: dict[str, Split]) -> None:
        self.info = info
        self._npz = npz
        self._splits = splits

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the archive; batches of splits still at hand stay readable."""
        self._npz.close()

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
    cache_dir: Path | None = None,
) -> Dataset:
    """Opens an `.npz`, checks names, types, shapes and labels, and makes the splits.

    `seed` decides the splits the server makes (60/20/20 of `x`, or tune as 20 % of train, at most
    10,000), nothing else; keep it the same for one data set, or test samples leak into training.
    `cache_dir` keeps what has to be unpacked; without it that lives as long as the result.

    Raises InvalidFile, UnsafeFile, StorageFull; InvalidInput for another task.
    """
    _check_task(task)
    npz = NpzFile(path, cache_dir)
    try:
        return _open(npz, task, seed)
    except BaseException:
        npz.close()
        raise


def inspect_dataset(
    path: Path,
    task: str = "classification",
    options: Mapping[str, Any] | None = None,
    *,
    folder: Path | None = None,
    seed: int = 0,
    cache_dir: Path | None = None,
) -> DatasetInfo:
    """The full check when a file arrives: all of `open_dataset`, and every value is read once.

    Raises InvalidFile with one sentence for the first fault found.
    """
    with open_dataset(path, task, options, seed=seed, cache_dir=cache_dir) as dataset:
        npz = dataset._npz
        contents = checks.find_arrays(npz)
        for names in contents.x.values():
            for name in names:
                npz.verify(name)
                checks.check_values(npz, name)
        for name in contents.y.values():
            npz.verify(name)
        return dataset.info


def _open(npz: NpzFile, task: str, seed: int) -> Dataset:
    contents = checks.find_arrays(npz)
    checks.check_samples(npz, contents)
    notes = list(contents.notes)
    labels: dict[str, np.ndarray] = {}
    for part, name in contents.y.items():
        labels[part], said = checks.read_labels(npz, name)
        notes += said
    transforms: list[Transform] = []
    for number in range(contents.inputs):
        transform, said = read_transform(npz, contents, number)
        transforms.append(transform)
        notes += said
    splits: dict[str, Split] = {}
    for name, (part, index) in _rows(labels, seed, notes).items():
        names = contents.x[part]
        splits[name] = Split(
            name=name,
            labels=labels[part] if index is None else labels[part][index],
            arrays=tuple(npz.array(n) for n in names),
            transforms=tuple(transforms),
            index=index,
            content=partial(_digests, npz, names),
        )
    classes = 1 + max(int(split.labels.max()) for split in splits.values())
    notes += checks.label_notes({n: s.labels for n, s in splits.items()}, classes)
    notes += _dtype_notes(npz, contents)
    first = next(iter(splits.values()))
    shapes = [
        list((a.shape[-1], *a.shape[1:-1]) if t.channels_last else a.shape[1:])
        for a, t in zip(first.arrays, transforms, strict=True)
    ]
    dtypes = [str(a.dtype.newbyteorder("=")) for a in first.arrays]
    notes += _scale_notes(transforms, dtypes)
    info = DatasetInfo(
        task=task,
        splits={name: len(split) for name, split in splits.items()},
        input_shape=shapes[0],
        classes=classes,
        inputs=len(shapes),
        dtype=dtypes[0],
        counts={name: split.counts(classes) for name, split in splits.items()},
        notes=notes,
        input_shapes=shapes,
        dtypes=dtypes,
        transformed=[t.changes_values for t in transforms],
    )
    return Dataset(npz, info, splits)


def _rows(
    labels: dict[str, np.ndarray], seed: int, notes: list[str]
) -> dict[str, tuple[str, np.ndarray | None]]:
    """For each split: the part of the file it comes from, and its rows there (None: all)."""
    if "" in labels:
        whole = labels[""]
        everything = np.arange(len(whole))
        held_out = round(HELD_OUT * len(whole))
        test = stratified_take(whole, everything, held_out, 2 * seed)
        rest = np.setdiff1d(everything, test, assume_unique=True)
        tune = stratified_take(whole[rest], rest, held_out, 2 * seed + 1)
        train = np.setdiff1d(rest, tune, assume_unique=True)
        if not (len(test) and len(tune)):
            raise InvalidFile(
                f"{_samples(len(whole))} too few to be split into train, tune and test.",
                "Give more samples (several of each class), or name the splits yourself: "
                "x_tune, y_tune, …",
            )
        notes.append(
            f"Split here, by class: {len(train):,} train, {len(tune):,} tune, {len(test):,} test."
        )
        return {"train": ("", train), "tune": ("", tune), "test": ("", test)}
    if "tune" in labels:
        return {name: (name, None) for name in checks.SPLITS if name in labels}
    whole = labels["train"]
    everything = np.arange(len(whole))
    tune = stratified_take(whole, everything, min(round(HELD_OUT * len(whole)), MAX_TUNE_CUT), seed)
    if not len(tune):
        raise InvalidFile(
            f"The {len(whole)} samples of x_train are too few to cut tune from them.",
            "Add x_tune and y_tune, or more samples of each class.",
        )
    train = np.setdiff1d(everything, tune, assume_unique=True)
    notes.append(
        f"tune was cut from train, by class: {len(tune):,} of {len(whole):,} samples. A network"
        " trained on them looks better there than it is; bring x_tune and y_tune to avoid that."
    )
    return {"train": ("train", train), "tune": ("train", tune), "test": ("test", None)}


def _samples(number: int) -> str:
    return "1 sample is" if number == 1 else f"{number} samples are"


def _dtype_notes(npz: NpzFile, contents: checks.Contents) -> list[str]:
    notes = []
    for names in zip(*contents.x.values(), strict=True):
        kinds = {name: npz.header(name).dtype for name in names}
        if len({dtype.newbyteorder("=") for dtype in kinds.values()}) > 1:
            listed = ", ".join(f"{name} {dtype}" for name, dtype in kinds.items())
            notes.append(f"The splits differ in type ({listed}); are they scaled alike?")
    return notes


def _scale_notes(transforms: Sequence[Transform], dtypes: Sequence[str]) -> list[str]:
    return [
        "The samples are bytes and the file has no scale: a network of float inputs gets 0 to 255."
        for transform, dtype in zip(transforms, dtypes, strict=True)
        if dtype == "uint8" and not transform.changes_values
    ]


def _digests(npz: NpzFile, names: Sequence[str]) -> list[str]:
    return [npz.digest(name) for name in names]


def _check_task(task: str) -> None:
    if task != "classification":
        raise InvalidInput(
            f"The task {task!r} is not available; data sets are read for classification.",
            "Leave task out or set it to classification.",
            fields={"task": "must be classification"},
        )
