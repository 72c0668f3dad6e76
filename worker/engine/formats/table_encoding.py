"""How columns become a network's numbers: by what the rows of train say, and by them alone.

Numbers are standardised by train's mean and deviation; a missing one becomes the mean, which is 0,
and a column that lacks numbers in train gets a second one that says where (1). Categories become
one column of 0 and 1 for each value that train has, or one whole number: 0 for a value that train
hasn't, or none, then 1, 2, … in sorted order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from worker.engine.formats.table_columns import listed

STEP = 8192


@dataclass(frozen=True)
class RawTable:
    """The usable columns on disk: numbers `(rows,)` with NaN, and codes `(rows,)`, -1 for none."""

    numbers: Mapping[str, np.ndarray]
    codes: Mapping[str, np.ndarray]
    order: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class NumberColumn:
    name: str
    mean: float
    std: float
    tells_missing: bool

    @property
    def features(self) -> list[str]:
        return [self.name, f"{self.name} missing"] if self.tells_missing else [self.name]

    def encode(self, values: np.ndarray) -> np.ndarray:
        """`(rows, features)`, float32."""
        gaps = np.isnan(values)
        columns = [np.where(gaps, 0.0, (values - self.mean) / self.std)]
        if self.tells_missing:
            columns.append(gaps.astype(np.float64))
        return np.stack(columns, axis=1).astype(np.float32)


@dataclass(frozen=True)
class CategoryColumn:
    """`places[code]`: which of train's values a code is, -1 for none of them."""

    name: str
    values: tuple[str, ...]
    places: np.ndarray

    @property
    def features(self) -> list[str]:
        return [f"{self.name}={value}" for value in self.values]

    def index(self, codes: np.ndarray) -> np.ndarray:
        """`(rows,)`, int64: 0 for unknown or missing, then 1, 2, …"""
        return self.places[codes] + 1

    def encode(self, codes: np.ndarray) -> np.ndarray:
        """`(rows, features)`, float32, of 0 and 1."""
        return (self.index(codes)[:, None] == np.arange(1, len(self.values) + 1)).astype(np.float32)


@dataclass(frozen=True)
class Encoder:
    """All columns; with `as_index` the categories are an input of their own."""

    columns: tuple[NumberColumn | CategoryColumn, ...]
    as_index: bool

    @property
    def dense(self) -> list[NumberColumn | CategoryColumn]:
        return [c for c in self.columns if isinstance(c, NumberColumn) or not self.as_index]

    @property
    def indexed(self) -> list[CategoryColumn]:
        return [c for c in self.columns if isinstance(c, CategoryColumn) and self.as_index]

    @property
    def feature_names(self) -> list[str]:
        names = [name for column in self.dense for name in column.features]
        return names + [column.name for column in self.indexed]

    @property
    def width(self) -> int:
        return sum(len(column.features) for column in self.dense)

    def rows(self, raw: RawTable, which: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Runs of the rows `which`: float32 `(n, width)` and int64 `(n, len(indexed))`."""
        for start in range(0, len(which), STEP):
            rows = which[start : start + STEP]
            dense = [
                column.encode(raw.numbers[column.name][rows])
                if isinstance(column, NumberColumn)
                else column.encode(raw.codes[column.name][rows])
                for column in self.dense
            ]
            codes = [column.index(raw.codes[column.name][rows]) for column in self.indexed]
            yield (
                np.concatenate(dense, axis=1) if dense else np.zeros((len(rows), 0), np.float32),
                np.stack(codes, axis=1) if codes else np.zeros((len(rows), 0), np.int64),
            )


def fit_encoder(raw: RawTable, train: np.ndarray, as_index: bool, notes: list[str]) -> Encoder:
    """Learns means, deviations and categories from the rows `train`, and says what is odd."""
    columns: list[NumberColumn | CategoryColumn] = []
    constant: list[str] = []
    gaps: list[str] = []
    for name in raw.order:
        if name in raw.numbers:
            column = _fit_numbers(name, raw.numbers[name], train)
            gaps += [name] if column.tells_missing else []
            constant += [name] if column.std == 1.0 and _is_constant(raw, name, train) else []
            columns.append(column)
        else:
            columns.append(_fit_categories(name, raw.codes[name], train, raw.values[name]))
    if any(isinstance(column, NumberColumn) for column in columns):
        notes.append("Numbers are standardised by the mean and deviation of train.")
    if gaps:
        notes.append(
            f"Missing numbers became train's mean, with a column that says where: {listed(gaps)}."
        )
    if constant:
        notes.append(f"Never varies in train, so it is 0 there: {listed(constant)}.")
    if categories := [c.name for c in columns if isinstance(c, CategoryColumn)]:
        how = "whole numbers (0: not in train)" if as_index else "columns of 0 and 1"
        notes.append(f"Categories became {how}, by the values in train: {listed(categories)}.")
    return Encoder(tuple(columns), as_index)


def _fit_numbers(name: str, values: np.ndarray, train: np.ndarray) -> NumberColumn:
    """Mean and population deviation, in two passes of float64; a deviation of 0 counts as 1."""
    count, total = 0, 0.0
    for start in range(0, len(train), STEP):
        there = _there(values[train[start : start + STEP]])
        count, total = count + len(there), total + float(there.sum())
    mean = total / count if count else 0.0
    squares = 0.0
    for start in range(0, len(train), STEP):
        there = _there(values[train[start : start + STEP]])
        squares += float(((there - mean) ** 2).sum())
    std = (squares / count) ** 0.5 if count else 0.0
    # What rounding leaves of a column that never varies is no deviation.
    tiny = 1e-12 * max(1.0, abs(mean))
    return NumberColumn(name, mean, std if std > tiny else 1.0, count < len(train))


def _fit_categories(
    name: str, codes: np.ndarray, train: np.ndarray, values: tuple[str, ...]
) -> CategoryColumn:
    seen = np.zeros(len(values) + 1, bool)
    for start in range(0, len(train), STEP):
        seen[codes[train[start : start + STEP]]] = True
    known = np.flatnonzero(seen[:-1])
    # One place more, so that the code -1 finds its -1 at the end.
    places = np.full(len(values) + 1, -1, np.int64)
    places[known] = np.arange(len(known))
    return CategoryColumn(name, tuple(values[code] for code in known), places)


def _is_constant(raw: RawTable, name: str, train: np.ndarray) -> bool:
    first: float | None = None
    for start in range(0, len(train), STEP):
        there = _there(raw.numbers[name][train[start : start + STEP]])
        if len(there):
            first = float(there[0]) if first is None else first
            if (there != first).any():
                return False
    return True


def _there(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]
