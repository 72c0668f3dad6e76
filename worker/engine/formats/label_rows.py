"""Labels of any shape, of which only those asked for are in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

SMALL = 64 << 20


class LabelRows:
    """Labels that stay on disk: indexed by rows and measured like an array.

    `read` takes a slice, an array of positions or one position along the first axis.
    """

    def __init__(
        self, read: Callable[[Any], np.ndarray], shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._read = read
        self.shape = shape
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.asarray(self._read(rows), self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def at(self, index: np.ndarray) -> LabelRows:
        """Only the rows at these positions, in this order."""
        return LabelRows(lambda rows: self[index[rows]], (len(index), *self.shape[1:]), self.dtype)


Labels = np.ndarray | LabelRows


def cast_rows(array: Any, dtype: Any) -> LabelRows:
    """An array on disk, or LabelRows, read as another type."""
    return LabelRows(lambda rows: array[rows], tuple(array.shape), np.dtype(dtype))


def held(labels: Labels) -> Labels:
    """An ndarray if it is small, otherwise as it is."""
    if isinstance(labels, LabelRows) and labels.nbytes <= SMALL:
        return labels[:]
    return labels


def rows_at(labels: Labels, index: np.ndarray | None) -> Labels:
    """The labels of some rows; in memory only if they are few."""
    if index is None:
        return held(labels)
    if isinstance(labels, LabelRows):
        return held(labels.at(index))
    return labels[index]
