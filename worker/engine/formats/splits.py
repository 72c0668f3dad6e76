"""One split of a data set: which rows, and how a stored row becomes the network's input."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worker.engine.formats.label_rows import Labels
from worker.engine.formats.sources import blocks

Batch = tuple[tuple[Tensor, ...], Tensor]

_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Transform:
    """`(x * scale - mean) / std` after `layout`, as the file's optional arrays say.

    `mean` and `std` are shaped so that they broadcast against one sample in the network's layout.
    """

    channels_last: bool = False
    scale: float | None = None
    mean: np.ndarray | None = None
    std: np.ndarray | None = None

    @property
    def changes_values(self) -> bool:
        return self.scale is not None or self.mean is not None or self.std is not None

    def apply(self, rows: np.ndarray, dtype: torch.dtype) -> Tensor:
        """Stored rows `(n, …)` to a fresh contiguous tensor of `dtype` in the network's layout."""
        if self.channels_last:
            rows = np.moveaxis(rows, -1, 1)
        if not dtype.is_floating_point:
            kind = np.bool_ if dtype is torch.bool else np.int64
            return torch.from_numpy(rows.astype(kind, order="C")).to(dtype)
        compute = np.float64 if dtype is torch.float64 else np.float32
        values = rows.astype(compute, order="C")
        if self.scale is not None:
            values *= compute(self.scale)
        if self.mean is not None:
            values -= self.mean.astype(compute)
        if self.std is not None:
            values /= self.std.astype(compute)
        return torch.from_numpy(values).to(dtype)

    def fingerprint(self) -> str:
        parts = [str(self.channels_last), repr(self.scale)]
        parts += [
            "-" if a is None else f"{a.shape}{a.astype(np.float64).tobytes().hex()}"
            for a in (self.mean, self.std)
        ]
        return "|".join(parts)


@dataclass(frozen=True, eq=False)
class Split:
    """`train`, `tune` or `test`: samples that are read when they are asked for, and their labels.

    Positions run from 0 to `len(split)`. Batches are fresh, contiguous tensors; inputs come as
    float32 unless `cast` says otherwise, labels as int64 if they are whole numbers, else float32.
    `labels` is an array, or `LabelRows` where they are too large for memory: `labels[rows]`, `len`,
    `shape`, `dtype` and `ndim` serve both.
    """

    name: str
    labels: Labels
    arrays: tuple[Any, ...]
    transforms: tuple[Transform, ...]
    index: np.ndarray | None
    content: Callable[[], Sequence[str]] = field(repr=False)
    dtypes: tuple[torch.dtype, ...] | None = None
    task: str = "classification"

    def __len__(self) -> int:
        return len(self.labels)

    def cast(self, dtypes: Sequence[torch.dtype]) -> Split:
        """The same split with input i as `dtypes[i]`: pass `[spec.dtype for spec in model.inputs]`.

        Integer inputs (token ids) come as they are stored, without scale, mean and std. One type
        more than there are inputs stands for an attention mask: ones in the shape of input 0.
        """
        return replace(self, dtypes=tuple(dtypes))

    def batch(self, start: int, stop: int) -> Batch:
        """Samples `start` to `stop` (exclusive, cut at the end) and their labels."""
        stop = min(stop, len(self))
        rows: Any = slice(start, stop) if self.index is None else self.index[start:stop]
        return self._read(rows, self.labels[start:stop])

    def gather(self, indices: np.ndarray) -> Batch:
        """The samples at these positions of the split, in this order, repeats allowed."""
        rows = indices if self.index is None else self.index[indices]
        return self._read(rows, self.labels[indices])

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The whole split in order; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.batch(start, start + batch_size)

    def counts(self, classes: int) -> list[int]:
        """Samples of each class, where every sample has one."""
        return np.bincount(np.asarray(self.labels), minlength=classes).tolist()

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of what this split gives: stored content, transform, rows, labels. Not the name.

        The first call reads all of the content once.
        """
        digest = hashlib.sha256()
        for part in (*self.content(), *(t.fingerprint() for t in self.transforms)):
            digest.update(f"{len(part)}:{part}".encode())
        if self.index is not None:
            digest.update(np.ascontiguousarray(self.index, dtype="<i8").data)
        digest.update(b"labels")
        for block in blocks(self.labels):
            kind = "<i8" if block.dtype.kind in "iu" else "<f8"
            digest.update(np.ascontiguousarray(block, dtype=kind).data)
        return digest.hexdigest()

    def _read(self, rows: Any, labels: np.ndarray) -> Batch:
        dtypes = self.dtypes or (torch.float32,) * len(self.arrays)
        inputs = tuple(
            transform.apply(array[rows], dtype)
            for array, transform, dtype in zip(
                self.arrays, self.transforms, dtypes[: len(self.arrays)], strict=True
            )
        )
        inputs += tuple(
            torch.ones_like(inputs[0], dtype=dtype) for dtype in dtypes[len(self.arrays) :]
        )
        whole = labels.dtype.kind in "iu"
        kind = np.int64 if whole else np.float32
        return inputs, torch.from_numpy(np.array(labels, kind, order="C"))


def shuffled(size: int, *seed: int) -> np.ndarray:
    """A permutation of `range(size)` that depends on nothing but the numbers given.

    Rows are ordered by SplitMix64 (Steele, Lea, Flood 2014) of seed and row, so that the same seed
    gives the same order whatever version of numpy or torch is installed.
    """
    state = 0
    for number in seed:
        state = _mix((state ^ (number & _MASK)) + 0x9E3779B97F4A7C15)
    keys = np.arange(size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(state)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    keys ^= keys >> np.uint64(31)
    return np.argsort(keys, kind="stable")


def stratified_take(labels: np.ndarray, rows: np.ndarray, total: int, seed: int) -> np.ndarray:
    """About `total` of `rows`, ascending, with every class in proportion to its share of them.

    `labels` holds the label of each of `rows`. Shares are rounded by largest remainder, and at
    least one row of every class stays behind, so fewer than `total` may come when classes are tiny.
    """
    classes, counts = np.unique(labels, return_counts=True)
    exact = total * counts / max(1, len(labels))
    quota = np.minimum(np.floor(exact).astype(np.int64), counts - 1)
    for position in np.argsort(-(exact - np.floor(exact)), kind="stable"):
        if quota.sum() >= total:
            break
        if quota[position] < counts[position] - 1:
            quota[position] += 1
    taken = []
    for label, count in zip(classes, quota, strict=True):
        members = rows[labels == label]
        taken.append(members[shuffled(len(members), seed, int(label))[:count]])
    return np.sort(np.concatenate(taken)) if taken else rows[:0]


def _mix(value: int) -> int:
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
