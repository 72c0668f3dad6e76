"""Labels as they are stored, brought to the forms that a network is judged by."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.domain.errors import InvalidFile
from app.domain.metrics import Task
from worker.engine.formats.label_rows import LabelRows, Labels, cast_rows
from worker.engine.formats.sources import Header, Source, blocks, kind_of

IGNORED = -100
MAX_CLASSES = 100_000


def check_label_header(name: str, header: Header, task: str) -> None:
    """Type and shape of labels, before any of them is read. Raises InvalidFile."""
    kind, shape = header.dtype.kind, header.shape
    if kind not in "biuf" or header.dtype.itemsize > 8:
        if task == Task.REGRESSION:
            said, hint = "what is predicted are numbers", "Save them with .astype(np.float32)."
        else:
            said = "labels are whole numbers from 0 on"
            hint = f"Number the classes: classes, {name} = np.unique({name}, return_inverse=True)."
        raise InvalidFile(f"{name} holds {kind_of(header.dtype)}; {said}.", hint)
    if not shape:
        raise InvalidFile(f"{name} is a single number.", "Its first axis must count the samples.")
    if 0 in shape:
        raise InvalidFile(f"{name} is empty.", "Leave the split out or fill it.")
    if task == Task.LANGUAGE_MODELLING and kind not in "iu":
        raise InvalidFile(
            f"{name} holds {header.stored}; the labels of a language model are token ids.",
            "Save them with .astype(np.int64), -100 where nothing is to be predicted.",
        )


def read_labels(
    source: Source, name: str, task: str, form: str | None = None
) -> tuple[Labels, list[str]]:
    """One part's labels and what was read leniently. Raises InvalidFile, naming the first fault.

    Single labels come as int64 `(n,)` in memory; everything else is read when it is asked for:
    int64 per position (or 0/1, undecided), bool or float yes/no labels, floats of a regression.
    `form`: "one-hot" turns rows into class numbers, "multi-label" takes any 0/1 rows as they are.
    """
    header = source.header(name)
    check_label_header(name, header, task)
    array, shape, kind = source.array(name), header.shape, header.dtype.kind
    if task == Task.REGRESSION:
        if kind == "b":
            raise InvalidFile(
                f"{name} holds False and True; a regression predicts numbers.",
                "Upload it as classification, or save the numbers.",
            )
        rows = cast_rows(array, np.float64 if kind in "iu" else header.dtype.newbyteorder("="))
        _check_finite(name, rows)
        return rows, []
    if task == Task.LANGUAGE_MODELLING:
        _check_numbers(name, array)
        return cast_rows(array, np.int64), []
    if form == "one-hot":
        return _from_one_hot(name, array), [f"The rows of {name} were read as one-hot classes."]
    column = len(shape) == 2 and shape[1] == 1 and form != "multi-label"
    if column and kind in "bf" and _is_yes_no(array):
        # Class numbers are saved as integers; this is what binary cross-entropy is trained with.
        said = f"{name} has the shape {shape} and holds 0 and 1: one yes/no label a sample."
        return cast_rows(array, header.dtype.newbyteorder("=")), [said]
    if len(shape) == 1 or column:
        return _single(name, np.asarray(array), header)
    if kind in "bf" and len(shape) == 2:
        _check_yes_no(name, array, form)
        return cast_rows(array, header.dtype.newbyteorder("=")), []
    if kind == "f":
        raise InvalidFile(
            f"{name} has the shape {shape} and holds {header.stored}; labels for each position are "
            "whole numbers.",
            f"Save {name}.astype(np.int64), or upload the data set as a regression.",
        )
    if kind != "b":
        _check_numbers(name, array)
    return cast_rows(array, np.int64), []


def count_classes(labels: Labels) -> int | None:
    """One more than the highest class number; of yes/no rows their width; None of other numbers."""
    if labels.dtype.kind not in "iu":
        return int(labels.shape[1]) if labels.ndim == 2 else None
    return 1 + max(int(block.max()) for block in blocks(labels))


def _single(name: str, labels: np.ndarray, header: Header) -> tuple[np.ndarray, list[str]]:
    notes = []
    if labels.ndim == 2:
        shape = header.shape
        notes.append(f"{name} has the shape {shape}; it was read as {shape[0]:,} labels.")
        labels = labels.reshape(-1)
    if labels.dtype.kind == "f":
        count = "Labels count classes; numbers to be predicted are uploaded as a regression."
        _refuse(name, labels, labels != np.floor(labels), "not whole numbers", count)
        _refuse(name, labels, ~np.isfinite(labels), "NaN or infinite", "Labels count classes.")
        notes.append(f"{name} holds whole numbers stored as {header.stored}; they were read so.")
    elif labels.dtype.kind == "b":
        notes.append(f"{name} holds False and True, which were read as 0 and 1.")
    if labels.dtype.kind != "b":
        below = "Labels run from 0 to classes - 1; leave samples without a label out."
        _refuse(name, labels, labels < 0, "negative", below)
    _refuse(
        name,
        labels,
        labels >= MAX_CLASSES,
        f"{MAX_CLASSES:,} or more",
        "Number the classes from 0 on: np.unique(labels, return_inverse=True).",
    )
    return labels.astype(np.int64), notes


def _check_numbers(name: str, array: Any) -> None:
    """Class numbers or token ids, one a position."""
    below = "Class numbers run from 0 on; positions without a label are -100."
    position = 0
    for block in blocks(array):
        numbers = np.asarray(block)
        wrong = (numbers < 0) & (numbers != IGNORED)
        _refuse(name, numbers, wrong, "negative and not -100", below, position)
        wrong = numbers >= 10 * MAX_CLASSES
        high = f"{10 * MAX_CLASSES:,} or more"
        _refuse(name, numbers, wrong, high, "Number the classes from 0 on.", position)
        position += len(block)


def _is_yes_no(array: Any) -> bool:
    return all(bool(((block == 0) | (block == 1)).all()) for block in blocks(array))


def _check_yes_no(name: str, array: Any, form: str | None) -> None:
    """Rows of 0 and 1. Where every row has exactly one 1 they are rather classes: refused."""
    one_hot, position = array.shape[1] > 1, 0
    for block in blocks(array):
        values = np.asarray(block)
        wrong = (values != 0) & (values != 1)
        _refuse(
            name,
            values,
            wrong,
            "neither 0 nor 1",
            "Rows of labels say yes (1) or no (0). Of scores the class is "
            f"{name}.argmax(axis=1); numbers to be predicted are uploaded as a regression.",
            position,
        )
        one_hot = one_hot and bool((values.sum(axis=1) == 1).all())
        position += len(block)
    if one_hot and form != "multi-label":
        raise InvalidFile(
            f"Every row of {name} has exactly one 1, which looks like one-hot rows of classes.",
            f"Use {name}.argmax(axis=1), or say which it is with the option "
            '{"labels": "one-hot"} or {"labels": "multi-label"}.',
        )


def _from_one_hot(name: str, array: Any) -> np.ndarray:
    if array.ndim != 2:
        raise InvalidFile(
            f"{name} has the shape {tuple(array.shape)}, which is not made of one-hot rows.",
            "Leave the option labels out.",
        )
    found, position = [], 0
    for block in blocks(array):
        values = np.asarray(block)
        wrong = ~(((values == 0) | (values == 1)).all(axis=1) & (values.sum(axis=1) == 1))
        if wrong.any():
            raise InvalidFile(
                f"Row {position + int(np.argmax(wrong))} of {name} is not one-hot.",
                'Leave the option labels out, or use {"labels": "multi-label"}.',
            )
        found.append(values.argmax(axis=1))
        position += len(block)
    return np.concatenate(found).astype(np.int64)


def _check_finite(name: str, rows: LabelRows) -> None:
    position = 0
    for block in blocks(rows):
        with np.errstate(over="ignore"):
            wrong = ~np.isfinite(block.astype(np.float32))
        _refuse(
            name,
            block,
            wrong,
            "NaN, infinite or beyond float32",
            "Remove these samples, or fill the gaps.",
            position,
        )
        position += len(block)


def _refuse(
    name: str, labels: np.ndarray, faulty: np.ndarray, what: str, hint: str, position: int = 0
) -> None:
    if faulty.any():
        first = np.unravel_index(int(np.argmax(faulty)), faulty.shape)
        raise InvalidFile(
            f"{name} has {int(faulty.sum()):,} labels that are {what}; the first is "
            f"{labels[first]} at sample {position + int(first[0])}.",
            hint,
        )
