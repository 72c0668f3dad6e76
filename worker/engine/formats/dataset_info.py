"""What is said about a data set once it is opened, for its page and for the checks of fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from app.domain.metrics import Task
from worker.engine.formats.dataset_checks import label_notes
from worker.engine.formats.dataset_labels import count_classes
from worker.engine.formats.dataset_options import Options
from worker.engine.formats.prepared import Said
from worker.engine.formats.splits import Split


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set without its content. All of it is JSON.

    `input_shape` and `dtype` are those of the first input; `input_shapes` and `dtypes` of all.
    Shapes are of one sample in the network's layout, `label_shape` of one sample's labels.
    `classes`: how many classes the labels name (the width of yes/no rows), None in a regression.
    `counts` are samples of each class by split, for single labels only. `options` are those in
    force, as they were given or chosen. `prepared`: whether there is an unpacked file.
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


def describe(
    splits: Mapping[str, Split],
    dtypes: Sequence[str],
    task: str,
    said: Said,
    options: Options,
    notes: Sequence[str],
) -> DatasetInfo:
    """The description of a data set with these splits; `dtypes` are those of the inputs' arrays."""
    first = next(iter(splits.values()))
    shapes = [
        list((a.shape[-1], *a.shape[1:-1]) if t.channels_last else a.shape[1:])
        for a, t in zip(first.arrays, first.transforms, strict=True)
    ]
    labels = {name: split.labels for name, split in splits.items()}
    single = task == Task.CLASSIFICATION and first.labels.ndim == 1
    classes = None
    if task != Task.REGRESSION:
        known = [count_classes(values) for values in labels.values()]
        classes = max([c for c in known if c is not None] + [len(said.class_names)])
    remarks = list(notes)
    if single:
        held = {name: np.asarray(values) for name, values in labels.items()}
        remarks += label_notes(held, classes or 0, said.class_names)
    if task != Task.LANGUAGE_MODELLING:
        remarks += _scale_notes(splits, dtypes)
    return DatasetInfo(
        task=str(task),
        splits={name: len(split) for name, split in splits.items()},
        input_shape=shapes[0],
        classes=classes,
        inputs=len(shapes),
        dtype=dtypes[0],
        counts={n: s.counts(classes or 0) for n, s in splits.items()} if single else {},
        notes=remarks,
        input_shapes=shapes,
        dtypes=list(dtypes),
        transformed=[t.changes_values for t in first.transforms],
        format=said.format,
        label_shape=list(first.labels.shape[1:]),
        label_dtype=str(first.labels.dtype),
        class_names=said.class_names,
        feature_names=said.feature_names,
        options=said.options or _given(options),
    )


def _given(options: Options) -> dict[str, Any]:
    return {key: value for key, value in asdict(options).items() if value is not None}


def _scale_notes(splits: Mapping[str, Split], dtypes: Sequence[str]) -> list[str]:
    first = next(iter(splits.values()))
    return [
        "The samples are bytes and the file has no scale: a network of float inputs gets 0 to 255."
        for transform, dtype in zip(first.transforms, dtypes, strict=True)
        if dtype == "uint8" and not transform.changes_values
    ]
