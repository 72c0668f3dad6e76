"""The order in which all cells see the samples of a split, and the dense network along it.

See `app/domain/stream_order.py` for why. Floating-point results depend on how samples are grouped
into batches, so the stream is cut into batches once, by shapes alone: the same sample is always
computed in the same company, whichever cells are measured and however far.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from app.domain.adaptive import Strata
from app.domain.stream_order import STRATA, looks_of, random_order, stream_order
from worker.engine.batches import load_batch
from worker.engine.formats.label_rows import rows_at
from worker.engine.objectives import Objective

if TYPE_CHECKING:
    from worker.engine.formats.splits import Split
    from worker.engine.graph import CanonicalModel
    from worker.engine.near_ties import NearTies

_REFERENCE_BYTES = 48 * 2**20
"""What the dense outputs kept for comparison may take; beyond, they are computed again."""


@dataclass(frozen=True)
class Stream:
    """A split in stream order. `members` [samples]: the stratum of each, in that order.

    `order` [samples]: positions in the split as it was.
    """

    split: Split
    order: np.ndarray
    members: np.ndarray
    strata: Strata
    looks: tuple[int, ...]
    batch_size: int
    fixed_batch: int | None

    @classmethod
    def of(
        cls,
        split: Split,
        members: np.ndarray,
        strata: Strata,
        *,
        seed: int,
        first: np.ndarray | None,
        batch_size: int,
        fixed_batch: int | None,
        at_random: bool = False,
    ) -> Stream:
        """`first`: the samples of a preview, which come first. `at_random`: without strata."""
        order = random_order(len(split), seed) if at_random else stream_order(members, seed, first)
        return cls(
            reordered(split, order),
            order,
            members[order],
            strata,
            looks_of(len(split), fixed_batch),
            batch_size,
            fixed_batch,
        )

    @cached_property
    def mark(self) -> int:
        """A number that other orders don't have.

        Strata follow from margins, whose last bits depend on how the dense network was computed;
        one sample in another stratum moves many others.
        """
        return zlib.crc32(np.ascontiguousarray(self.order, dtype=np.int64).tobytes())

    def next_look(self, seen: int) -> int:
        """The first look after so many samples."""
        return next(look for look in self.looks if look > seen)

    def bounds(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The batches from one look to another (0 counts as one)."""
        found: list[tuple[int, int]] = []
        at = 0
        for look in self.looks:
            if start <= at and look <= stop:
                found += self._cut(at, look)
            at = look
        return found

    def _cut(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        size = self.fixed_batch
        if size is None:
            count = -(-(stop - start) // self.batch_size)
            size = -(-(stop - start) // count)
        return ((at, min(at + size, stop)) for at in range(start, stop, size))


def reordered(split: Split, order: np.ndarray) -> Split:
    """The same samples in another order, read from where they lie."""
    index = order if split.index is None else split.index[order]
    return replace(split, index=index, labels=rows_at(split.labels, order))


def sizes_of(members: np.ndarray) -> tuple[int, ...]:
    return tuple(int(size) for size in np.bincount(members, minlength=STRATA))


@dataclass(frozen=True)
class DenseBatch:
    """The dense network on one batch of the stream.

    `answers` [batch, ...]; `right` [batch]: right answers of each sample, None for numbers;
    `losses` [batch]: summed over its answers; `onehot` [batch, strata]; `reference`: its outputs,
    as the objective compares others with them.
    """

    inputs: tuple[Tensor, ...]
    labels: Tensor
    answers: np.ndarray
    right: np.ndarray | None
    losses: np.ndarray
    onehot: np.ndarray
    reference: Any


@dataclass
class _Kept:
    answers: np.ndarray
    right: np.ndarray | None
    losses: np.ndarray
    reference: Any


class DenseStream:
    """Runs the dense network along the stream, each batch when it is first asked for.

    `run` gives the dense outputs [batch, ...] of a batch's inputs, `near_ties` the answers that
    its rounding could turn. What is kept is bounded; the
    rest is computed again.
    """

    def __init__(
        self,
        model: CanonicalModel,
        stream: Stream,
        objective: Objective,
        run: Callable[[Sequence[Tensor]], Any],
        near_ties: NearTies | None = None,
    ) -> None:
        self._model = model
        self._near_ties = near_ties
        self._stream = stream
        self._objective = objective
        self._run = run
        self._kept: dict[int, _Kept] = {}
        self._room = _REFERENCE_BYTES
        self._identity = np.eye(STRATA)

    def batch(self, start: int, stop: int) -> DenseBatch:
        """Call it within inference mode, with the weights as they are in the dense network."""
        inputs, labels = load_batch(self._model, self._stream.split, start, stop)
        kept = self._kept.get(start)
        if kept is None:
            kept = self._judge(inputs, labels)
            size = _bytes_of(kept)
            if size <= self._room:
                self._room -= size
                self._kept[start] = kept
        members = self._stream.members[start:stop]
        return DenseBatch(
            inputs,
            labels,
            kept.answers,
            kept.right,
            kept.losses,
            self._identity[members],
            kept.reference,
        )

    def _judge(self, inputs: Sequence[Tensor], labels: Tensor) -> _Kept:
        outputs = self._objective.outputs(self._run(inputs), labels)
        if self._near_ties is not None:
            outputs = self._near_ties.settled(outputs, inputs, labels)
        judged = self._objective.tally(1).judge(outputs.unsqueeze(0), labels, None)
        return _Kept(
            judged.answers[0],
            right_of(judged.hits)[0] if judged.hits is not None else None,
            judged.losses[0],
            self._objective.reference(outputs.clone(), labels),
        )


def right_of(hits: np.ndarray) -> np.ndarray:
    """Right answers of each sample [rows, batch] from hits [rows, batch, ...]."""
    if hits.ndim == 2:
        return hits.astype(np.int64)
    return np.count_nonzero(hits.reshape(*hits.shape[:2], -1), axis=2)


def _bytes_of(kept: _Kept) -> int:
    size = kept.answers.nbytes + kept.losses.nbytes
    for part in vars(kept.reference).values() if hasattr(kept.reference, "__dict__") else ():
        if isinstance(part, Tensor):
            size += part.numel() * part.element_size()
        elif isinstance(part, np.ndarray):
            size += part.nbytes
    return size
