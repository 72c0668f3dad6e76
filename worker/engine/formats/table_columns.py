"""What the columns of a table are: numbers, categories, target, split, or nothing usable."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from app.domain.errors import InvalidFile, InvalidInput
from app.domain.metrics import Task
from worker.engine.formats.csv_file import Cells
from worker.engine.formats.dataset_options import TableOptions
from worker.engine.formats.image_folders import SPLIT_FOLDERS

MAX_ONE_HOT = 50
MAX_CATEGORIES = 10_000
MAX_CLASSES = 1000
MAX_FEATURES = 20_000
MAX_VALUE = 200
_TARGETS = ("target", "label", "labels", "y", "class")
_SPLIT = "split"


class Table(Protocol):
    """A table that is read again and again, in runs of rows."""

    columns: tuple[str, ...]
    skipped: dict[str, str]
    notes: list[str]

    def batches(self) -> Iterator[Mapping[str, Cells | np.ndarray]]: ...


@dataclass
class Column:
    """What all rows say of one column.

    `values`: the distinct ones, None once they are too many or too long to be names of anything.
    """

    numeric: bool = True
    whole: bool = True
    missing: int = 0
    values: dict[str, None] | None = field(default_factory=dict)

    def add(self, cells: Cells | np.ndarray) -> None:
        numbers = as_numbers(cells) if self.numeric else None
        if numbers is None:
            self.numeric = self.whole = False
            self.missing += sum(cell is None for cell in cells)
        else:
            there = numbers[~np.isnan(numbers)]
            self.missing += len(numbers) - len(there)
            self.whole = self.whole and bool((there == np.floor(there)).all())
        if self.values is not None:
            found = {text for text in as_texts(cells) if text is not None}
            self.values.update(dict.fromkeys(found))
            if len(self.values) > MAX_CATEGORIES or any(len(text) > MAX_VALUE for text in found):
                self.values = None


@dataclass(frozen=True)
class Roles:
    """Which column plays which part. `categories`: the distinct values of each, sorted.

    `order` are the columns to predict from as they stand in the table; `numbered` all columns whose
    cells are numbers.
    """

    rows: int
    target: str
    classes: tuple[str, ...]
    split: str | None
    numeric: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]
    order: tuple[str, ...]
    numbered: frozenset[str]


def as_numbers(cells: Cells | np.ndarray) -> np.ndarray | None:
    """float64 with NaN for missing; None if some cell is no number."""
    if isinstance(cells, np.ndarray):
        return cells
    try:
        return np.array(["nan" if cell is None else cell for cell in cells], dtype=np.float64)
    except ValueError:
        return None


def as_texts(cells: Cells | np.ndarray) -> list[str | None]:
    """Text with None for missing; numbers in one way of writing, so that 1 and 1.0 are the same."""
    if isinstance(cells, np.ndarray):
        return [None if math.isnan(v) else _plain(v) for v in cells.tolist()]
    return cells


def find_roles(table: Table, task: str, options: TableOptions, notes: list[str]) -> Roles:
    """Reads the table once. Raises InvalidFile, and InvalidInput for options that don't fit it."""
    names = [name for name in table.columns if name and name not in table.skipped]
    _check_options(table, options)
    looks = {name: Column() for name in names}
    rows = 0
    for batch in table.batches():
        rows += len(batch[names[0]]) if names else 0
        for name in names:
            looks[name].add(batch[name])
    if not rows:
        raise InvalidFile("The table has no rows.", "Is there more than the line of names?")
    notes += table.notes
    split = _find_split(names, looks, options, notes)
    target = _find_target([n for n in names if n != split], options, notes)
    classes = _classes(target, looks[target], task)
    if looks[target].missing:
        notes.append(f"{looks[target].missing:,} rows without a {target!r} were left out.")
    numeric: list[str] = []
    categories: dict[str, tuple[str, ...]] = {}
    order: list[str] = []
    left_out: dict[str, list[str]] = {}
    for name in names:
        if name in (target, split) or name in options.ignore:
            continue
        look = looks[name]
        if look.missing == rows:
            left_out.setdefault("empty", []).append(name)
            continue
        asked = name in options.categorical
        if look.numeric and not asked:
            numeric.append(name)
        elif look.values is None:
            if asked:
                raise _too_many_categories(name)
            left_out.setdefault("text of too many values", []).append(name)
            continue
        elif len(look.values) > MAX_ONE_HOT and not asked and options.as_form == "one-hot":
            left_out.setdefault("text of too many values", []).append(name)
            continue
        else:
            categories[name] = tuple(_sorted(look.values, look.numeric))
        order.append(name)
    _say_left_out(table, left_out, notes)
    if not order:
        raise InvalidFile(
            "No column is left to predict from.",
            "Columns are numbers, or text with few different values; dates and free text are not "
            "read.",
        )
    numbered = frozenset(name for name, look in looks.items() if look.numeric)
    return Roles(rows, target, classes, split, tuple(numeric), categories, tuple(order), numbered)


def _check_options(table: Table, options: TableOptions) -> None:
    """Every column that the options name is there."""
    told = {"target": [options.target] if options.target else []}
    told |= {"ignore": list(options.ignore), "categorical": list(options.categorical)}
    wrong = {}
    for key, names in told.items():
        if missing := [name for name in names if name not in table.columns]:
            wrong[f"options.{key}"] = f"the table has no column {missing[0]!r}"
    if options.target and options.target in table.skipped:
        wrong["options.target"] = f"this column holds {table.skipped[options.target]}"
    if options.target and options.target in options.ignore:
        wrong["options.ignore"] = "names the target"
    if wrong:
        key, fault = next(iter(wrong.items()))
        listed = ", ".join(repr(name) for name in table.columns[:12])
        raise InvalidInput(
            f"The option {key.removeprefix('options.')!r} can't be used: {fault}.",
            f"The columns are {listed}{' …' if len(table.columns) > 12 else ''}.",
            fields=wrong,
        )


def _find_split(
    names: list[str], looks: Mapping[str, Column], options: TableOptions, notes: list[str]
) -> str | None:
    for name in names:
        if name.lower() != _SPLIT or name in options.ignore or name == options.target:
            continue
        values = looks[name].values
        if values and all(value.lower() in SPLIT_FOLDERS for value in values):
            if looks[name].missing:
                raise InvalidFile(
                    f"The column {name!r} is empty in {looks[name].missing:,} rows.",
                    "Write train, val or test in each row, or ignore the column.",
                )
            notes.append(f"The column {name!r} says which split a row belongs to.")
            return name
    return None


def _find_target(names: list[str], options: TableOptions, notes: list[str]) -> str:
    if options.target:
        return options.target
    left = [name for name in names if name not in options.ignore]
    if not left:
        raise InvalidFile("No column is left to be predicted.", "Name one: the option target.")
    for wanted in _TARGETS:
        for name in left:
            if name.lower() == wanted:
                notes.append(f"The column {name!r} is what is predicted, for its name.")
                return name
    notes.append(
        f"The last column, {left[-1]!r}, is what is predicted; the option target names another."
    )
    return left[-1]


def _classes(target: str, look: Column, task: str) -> tuple[str, ...]:
    """The sorted classes of a classification, nothing for a regression. Raises InvalidFile."""
    if task == Task.REGRESSION:
        if not look.numeric:
            raise InvalidFile(
                f"The column {target!r} holds text; a regression predicts numbers.",
                "Name another with the option target, or upload the table as classification.",
            )
        return ()
    if look.numeric and not look.whole:
        raise InvalidFile(
            f"The column {target!r} holds numbers with decimals; classes are words or whole "
            "numbers.",
            "Upload the table as a regression, or name another column with the option target.",
        )
    if look.values is None or len(look.values) > MAX_CLASSES:
        raise InvalidFile(
            f"The column {target!r} has more than {MAX_CLASSES:,} different values, or very long "
            "ones: these are no classes.",
            "Upload the table as a regression if they are numbers, or name another column with "
            "the option target.",
        )
    return tuple(_sorted(look.values, look.numeric))


def _say_left_out(table: Table, left_out: Mapping[str, list[str]], notes: list[str]) -> None:
    why = {reason: list(names) for reason, names in left_out.items()}
    for name, kind in table.skipped.items():
        why.setdefault(kind, []).append(name)
    if nameless := sum(not name for name in table.columns):
        what = "A column" if nameless == 1 else f"{nameless} columns"
        notes.append(f"{what} without a name left out.")
    for reason, names in why.items():
        more = (
            f" (more than {MAX_ONE_HOT}, or very long ones: dates, names, free text, numbers with "
            "decimal commas); the option categorical takes them as categories"
            if reason.startswith("text")
            else ""
        )
        notes.append(f"Left out, {reason}: {listed(names)}{more}.")


def listed(names: Sequence[str]) -> str:
    """Column names for a sentence, however many and however long."""
    shown = ", ".join(repr(name[:40]) for name in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _too_many_categories(name: str) -> InvalidInput:
    return InvalidInput(
        f"The column {name!r} has more than {MAX_CATEGORIES:,} different values, or long ones.",
        "Leave it out of the option categorical.",
        fields={"options.categorical": f"{name!r} has too many different values"},
    )


def _sorted(values: Mapping[str, None], numeric: bool) -> list[str]:
    if not numeric:
        return sorted(values)
    numbers = {float(value) for value in values}
    return [_plain(number) for number in sorted(n for n in numbers if not math.isnan(n))]


def _plain(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(value)
