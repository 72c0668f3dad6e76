"""What an uploaded data set must fulfil: one clear sentence, and a way out, per fault."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.domain.errors import InvalidFile
from app.domain.metrics import Task
from worker.engine.formats.dataset_labels import check_label_header
from worker.engine.formats.sources import Source, blocks, kind_of

SPLITS = ("train", "tune", "test")
_X = re.compile(r"x(?:_(train|tune|test))?(?:\.(\d{1,3}))?")
_Y = re.compile(r"y(?:_(train|tune|test))?")
_OPTION = re.compile(r"(scale|mean|std|layout)(?:\.(\d{1,3}))?")
_KNOWN = ["x", "y", "scale", "mean", "std", "layout"] + [f"{a}_{s}" for a in "xy" for s in SPLITS]
_SYNONYMS = {"val": "tune", "valid": "tune", "validation": "tune", "dev": "tune", "eval": "tune"}
_NAMES_HINT = (
    "Name the arrays x_train, y_train, x_test, y_test (and x_tune, y_tune if you have them), "
    "or x and y to have them split here."
)


@dataclass(frozen=True)
class Contents:
    """Which arrays play which part. Keys of `x` and `y` are split names; "" means all of it.

    `y` is empty where the labels are made from the samples (language modelling).
    """

    x: dict[str, tuple[str, ...]]
    y: dict[str, str]
    options: dict[tuple[str, int | None], str]
    notes: list[str]

    @property
    def inputs(self) -> int:
        return len(next(iter(self.x.values())))


def find_arrays(source: Source, task: str = Task.CLASSIFICATION) -> Contents:
    """Sorts the file's arrays into samples, labels and options. Raises InvalidFile."""
    numbered: dict[str, dict[int | None, str]] = {}
    y: dict[str, str] = {}
    options: dict[tuple[str, int | None], str] = {}
    unknown: list[str] = []
    for name in source.names:
        if match := _X.fullmatch(name):
            number = None if match[2] is None else int(match[2])
            if number in numbered.setdefault(match[1] or "", {}):
                raise InvalidFile(
                    f"{name} and another array are both input {number}.", "Number from .0 on."
                )
            numbered[match[1] or ""][number] = name
        elif match := _Y.fullmatch(name):
            y[match[1] or ""] = name
        elif match := _OPTION.fullmatch(name):
            options[match[1], None if match[2] is None else int(match[2])] = name
        else:
            unknown.append(name)
    if not numbered:
        found = ", ".join(map(_shown, source.names[:12])) or "none"
        raise InvalidFile(f"The file has no array x or x_train; it has {found}.", _NAMES_HINT)
    x = {split: _input_names(split, names) for split, names in numbered.items()}
    _check_pairs(x, y, unknown, labelled=bool(y) or task != Task.LANGUAGE_MODELLING)
    widths = {len(names) for names in x.values()}
    if len(widths) > 1:
        raise InvalidFile(
            "The splits have different numbers of inputs: "
            + ", ".join(f"{_x(s)} {len(n)}" for s, n in x.items())
            + ".",
            "Give every split the same inputs x_SPLIT.0, x_SPLIT.1, …",
        )
    for (option, number), name in options.items():
        if number is not None and number >= widths.copy().pop():
            raise InvalidFile(f"{name} is for an input that isn't there.", f"Remove {option}.")
    notes = [_unused(name) for name in unknown[:20]]
    notes += [f"The entry {_shown(name)} is no array and isn't used." for name in source.others[:5]]
    return Contents(x, y, options, notes)


def check_headers(source: Source, contents: Contents, task: str) -> None:
    """Types, shapes and lengths of all arrays, from their headers alone. Raises InvalidFile."""
    first: dict[int, tuple[str, tuple[int, ...]]] = {}
    for split, names in contents.x.items():
        label_shape = source.header(contents.y[split]).shape if split in contents.y else ()
        for number, name in enumerate(names):
            header = source.header(name)
            if header.dtype.kind not in "biuf" or header.dtype.itemsize > 8:
                raise InvalidFile(
                    f"{name} holds {kind_of(header.dtype)}, not numbers that a network can take.",
                    "Convert it first, for example with .astype(np.float32).",
                )
            if not header.shape:
                raise InvalidFile(
                    f"{name} is a single number.", "Its first axis must count the samples."
                )
            if header.shape[0] == 0:
                raise InvalidFile(
                    f"{name} is empty: it has no samples.", "Leave the split out or fill it."
                )
            if 0 in header.shape:
                raise InvalidFile(
                    f"{name} has the shape {header.shape}: its samples are empty.",
                    "Check how the array was made.",
                )
            if label_shape and label_shape[0] != header.shape[0]:
                raise InvalidFile(
                    f"{name} has {header.shape[0]:,} samples but {contents.y[split]} has "
                    f"{label_shape[0]:,} labels.",
                    "Both must have the same length, in the same order.",
                )
            other, shape = first.setdefault(number, (name, header.shape[1:]))
            if shape != header.shape[1:]:
                raise InvalidFile(
                    f"The samples of {other} have the shape {shape}, those of {name} "
                    f"{header.shape[1:]}.",
                    "All splits must have samples of one shape.",
                )
    for name in contents.y.values():
        check_label_header(name, source.header(name), task)


def label_notes(
    labels: Mapping[str, np.ndarray], classes: int, names: Sequence[str] = ()
) -> list[str]:
    """What is odd about the labels of the finished splits without being wrong."""
    notes = []
    seen = np.unique(np.concatenate(list(labels.values())))
    if seen[0] == 1 and len(seen) > 1 and not names:
        notes.append("No sample has label 0; if your labels start at 1, subtract 1.")
    missing = classes - len(seen) - int(seen[0] == 1 and not names)
    if missing > 0:
        notes.append(f"{missing} of the {classes} labels up to {classes - 1} never occur.")
    for split, values in labels.items():
        if len(np.unique(values)) == 1 and len(seen) > 1:
            notes.append(f"All samples of {split} have the label {_label(values[0], names)}.")
        if split != "train" and "train" in labels:
            strangers = np.setdiff1d(values, labels["train"])
            if len(strangers):
                shown = ", ".join(_label(s, names) for s in strangers[:5])
                more = " …" if len(strangers) > 5 else ""
                notes.append(f"{split} has labels that never occur in train: {shown}{more}.")
    return notes


def _label(number: int, names: Sequence[str]) -> str:
    return _shown(names[number]) if names else str(int(number))


def check_values(name: str, array: Any) -> None:
    """Reads one array of samples through: NaN, infinity, overflow. Raises InvalidFile."""
    if array.dtype.kind != "f":
        return
    faulty, first, position, kind = 0, -1, 0, ""
    for block in blocks(array):
        with np.errstate(over="ignore"):
            fine = np.isfinite(block.astype(np.float32)).reshape(len(block), -1).all(axis=1)
        if not fine.all():
            if first < 0:
                row = int(np.argmin(fine))
                first, values = position + row, np.asarray(block[row], dtype=np.float64)
                kind = (
                    "NaN"
                    if np.isnan(values).any()
                    else "infinite values"
                    if np.isinf(values).any()
                    else "values beyond float32"
                )
            faulty += int((~fine).sum())
        position += len(block)
    if faulty:
        raise InvalidFile(
            f"{name} has {faulty:,} of {len(array):,} samples with values that are not finite; "
            f"the first is sample {first} ({kind}).",
            "Remove these samples with their labels, or fill the gaps "
            "(np.nan_to_num if 0 is a sensible value).",
        )


def _input_names(split: str, names: dict[int | None, str]) -> tuple[str, ...]:
    if None in names:
        if len(names) > 1:
            other = next(name for number, name in names.items() if number is not None)
            raise InvalidFile(
                f"The file has {_x(split)} beside {other}.",
                f"Several inputs are {_x(split)}.0, {_x(split)}.1, …; one input is {_x(split)}.",
            )
        return (names[None],)
    for number in range(len(names)):
        if number not in names:
            raise InvalidFile(
                f"The inputs of {_x(split)} are not numbered from 0 on: "
                f"{_x(split)}.{number} is missing.",
                "Number several inputs .0, .1, .2, … without a gap.",
            )
    return tuple(names[number] for number in range(len(names)))


def _check_pairs(
    x: dict[str, tuple[str, ...]], y: dict[str, str], unknown: Sequence[str], *, labelled: bool
) -> None:
    for split in x:
        if labelled and split not in y:
            raise InvalidFile(
                f"{_x(split)} has no labels: {_y(split)} is missing.{_near(_y(split), unknown)}",
                f"Add {_y(split)}, as long as {_x(split)}.",
            )
    for split in y:
        if split not in x:
            raise InvalidFile(
                f"{_y(split)} has no samples: {_x(split)} is missing.{_near(_x(split), unknown)}",
                f"Add {_x(split)}, or remove {_y(split)}.",
            )
    if "" in x and len(x) > 1:
        other = _x(next(s for s in x if s))
        raise InvalidFile(
            f"The file has both x and {other}, so it isn't clear what the splits are.",
            "Keep either x and y, or the arrays that name their split.",
        )
    if "" not in x and "tune" not in x:
        missing = next((s for s in ("train", "test") if s not in x), None)
        if missing:
            present = _x(next(iter(x)))
            raise InvalidFile(
                f"The file has {present} but neither x_tune nor {_x(missing)}."
                + _near("x_tune", unknown),
                "Add x_tune and y_tune, on which the curves are measured; or give x_train and "
                "x_test (tune is then cut from train); or name the arrays x and y to have them "
                "split here.",
            )


def _unused(name: str) -> str:
    return f"The array {_shown(name)} isn't used.{_suggestion(name)}"


def _suggestion(name: str) -> str:
    lowered = name.lower().replace("-", "_").replace(" ", "_")
    if lowered.split("_")[-1] in _SYNONYMS:
        lowered = "_".join([*lowered.split("_")[:-1], _SYNONYMS[lowered.split("_")[-1]]])
    near = difflib.get_close_matches(lowered, _KNOWN, 1, 0.75)
    return f" Did you mean {near[0]}?" if near and near[0] != name else ""


def _near(wanted: str, unknown: Sequence[str]) -> str:
    for name in unknown:
        if _suggestion(name).endswith(f" {wanted}?"):
            return f" There is {_shown(name)}: rename it to {wanted}."
    return ""


def _shown(name: str) -> str:
    return repr(name if len(name) <= 40 else name[:40] + "…")


def _x(split: str) -> str:
    return f"x_{split}" if split else "x"


def _y(split: str) -> str:
    return f"y_{split}" if split else "y"
