"""What every kind of data set file comes down to: named arrays that are read from disk by rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

BLOCK = 16 << 20
MAX_WORD = 256


@dataclass(frozen=True)
class Header:
    """Shape and type of an array as its rows come; `stored` names the type in the file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stored: str


class Source(Protocol):
    """An opened file of named arrays.

    `others` are entries that are no arrays. `arrays` hands out read-only, memory-mapped arrays in C
    order (or `BFloat16`, which is read like one).
    """

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def others(self) -> tuple[str, ...]: ...
    def header(self, name: str) -> Header: ...
    def array(self, name: str) -> Any: ...
    def word(self, name: str) -> str | None:
        """The text of this name, None if it is no text. Raises InvalidFile if it is too long."""
        ...

    def verify(self, name: str) -> None:
        """Compares the content with its checksum if there is one. Raises InvalidFile."""
        ...

    def close(self) -> None: ...


class BFloat16:
    """bfloat16 rows, a type numpy doesn't have: given as the float32 numbers that they are."""

    dtype = np.dtype(np.float32)

    def __init__(self, bits: np.ndarray) -> None:
        self._bits = bits
        self.shape: tuple[int, ...] = bits.shape
        self.ndim: int = bits.ndim

    def __len__(self) -> int:
        return len(self._bits)

    def __getitem__(self, rows: Any) -> np.ndarray:
        wide = np.asarray(self._bits[rows]).astype(np.uint32)
        return np.left_shift(wide, 16).view(np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self[...]
        return values if dtype is None else values.astype(dtype)

    def reshape(self, *shape: Any) -> BFloat16:
        return BFloat16(self._bits.reshape(*shape))


def blocks(array: Any, block_bytes: int = BLOCK) -> Iterator[np.ndarray]:
    """Runs of whole rows (first axis) of about `block_bytes` each; a 0-d array comes as one row."""
    if array.ndim == 0:
        yield np.asarray(array).reshape(1)
        return
    row = max(1, math.prod(array.shape[1:]) * array.dtype.itemsize)
    step = max(1, block_bytes // row)
    for start in range(0, len(array), step):
        yield array[start : start + step]


def digest_of(array: Any) -> str:
    """sha256 of an array's type, shape and content in C order."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    for block in blocks(array):
        if block.size:
            digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()


def kind_of(dtype: np.dtype[Any]) -> str:
    kinds = {"U": "text", "S": "text", "c": "complex numbers", "M": "dates", "m": "durations"}
    return kinds.get(dtype.kind, "records" if dtype.names else str(dtype)[:40])
