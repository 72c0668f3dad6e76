"""Answers by sample, classes and states, as a child tells them: checked, and small."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.domain.comparison import answers_of_a_sample
from app.domain.metrics import Kind
from worker.tasks.reports import (
    BaselineSaid,
    ByClassSaid,
    Figures,
    PointSaid,
    malformed,
    require,
)

MAX_HITS_BYTES = 64 << 20
"""Packed answers of one network: half a billion."""
MAX_STATE_BYTES = 16 << 20


@dataclass(frozen=True)
class OutcomeFacts:
    """`hits` deflated, as they are stored; `state` is for the recipe alone."""

    samples: int
    hits: bytes | None
    by_class: dict[str, Any] | None
    state: bytes | None
    sums: dict[str, Any] | None = None


def outcome_of(
    said: BaselineSaid | PointSaid, samples: int, correct: int | None, answers: int | None
) -> tuple[OutcomeFacts | None, int]:
    """The outcome in a message, and how many answers a sample has (0: none is right or wrong).

    `answers` None: the dense network's own, which tells how many. Raises ChildMalformed unless the
    bits are as many as there are answers, and as many are set as were said to be right.
    """
    packed = None if said.outcome is None else decoded(said.outcome, MAX_HITS_BYTES)
    state = said.state if isinstance(said, PointSaid) else said.members
    kept = None if state is None else decoded(state, MAX_STATE_BYTES)
    if packed is None:
        if kept is None and said.by_class is None:
            return None, answers or 0
        return OutcomeFacts(samples, None, _classes(said), kept, _sums(said)), answers or 0
    expected = MAX_HITS_BYTES if answers is None else -(-samples * answers // 8)
    plain = inflated(packed, min(MAX_HITS_BYTES, expected + 1))
    if answers is None:
        try:
            answers = answers_of_a_sample(len(plain), samples)
        except ValueError:
            raise malformed("answers of no whole number a sample") from None
    require(answers > 0, "answers where there are none")
    require(len(plain) == -(-samples * answers // 8), "another number of answers")
    require(correct is not None and ones(plain) == correct, "answers that are not those counted")
    return OutcomeFacts(samples, packed, _classes(said), kept, _sums(said)), answers


def check_members(state: bytes | None, sizes: Sequence[int]) -> None:
    """Raises ChildMalformed unless the strata of the stream's samples are of these sizes."""
    if state is None:
        return
    members = np.frombuffer(inflated(state, sum(sizes) + 1), dtype=np.uint8)
    counted = np.bincount(members, minlength=len(sizes)).tolist()
    require(counted == list(sizes), "samples of other strata")


def check_apart(outcome: OutcomeFacts | None, samples: int) -> None:
    """Raises ChildMalformed unless stratum 0 has exactly the samples that are answered wrong."""
    if outcome is None or outcome.hits is None or outcome.state is None:
        return
    members = np.frombuffer(inflated(outcome.state, samples + 1), dtype=np.uint8)
    packed = np.frombuffer(inflated(outcome.hits, samples // 8 + 2), dtype=np.uint8)
    right = np.unpackbits(packed, count=samples).astype(bool)
    require(np.array_equal(members == 0, ~right), "other samples than the wrong ones apart")


def _classes(said: BaselineSaid | PointSaid) -> dict[str, Any] | None:
    return None if said.by_class is None else said.by_class.model_dump()


def _sums(said: BaselineSaid | PointSaid) -> dict[str, Any] | None:
    sums = said.sums if isinstance(said, PointSaid) else None
    return None if sums is None else sums.model_dump()


def check_classes(said: ByClassSaid | None, figures: Figures, samples: int) -> None:
    """Raises ChildMalformed unless the classes add up to the figures."""
    if said is None:
        return
    require(len(said.seen) == len(said.right), "classes of two lengths")
    pairs = zip(said.seen, said.right, strict=True)
    require(all(right <= seen for seen, right in pairs), "a class more right than seen")
    require(sum(said.right) == figures.correct, "classes that are not those counted")
    if figures.kind == Kind.SINGLE_LABEL:
        require(sum(said.seen) == samples, "classes of other samples")


def decoded(text: str, limit: int) -> bytes:
    """Of base64. Raises ChildMalformed for anything else, and for more than `limit` bytes."""
    require(len(text) <= limit * 4 // 3 + 4, "more bytes than are kept")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise malformed("bytes that are none") from None


def inflated(packed: bytes, limit: int) -> bytes:
    """Of zlib, to its very end. Raises ChildMalformed for anything else, or for too much."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(packed, limit)
    except zlib.error:
        raise malformed("answers that can't be unpacked") from None
    require(stream.eof and not stream.unused_data, "answers without end")
    return plain


def ones(plain: bytes) -> int:
    """How many bits are set."""
    return int(np.bitwise_count(np.frombuffer(plain, dtype=np.uint8)).sum(dtype=np.int64))


def said_state(state: bytes | None) -> str | None:
    """A state as the recipe takes it back."""
    return None if state is None else base64.b64encode(state).decode()


def same_bytes(first: bytes | None, second: bytes | None) -> bool:
    """Whether two deflated texts say the same."""
    if first is None or second is None:
        return first is second
    return first == second or inflated(first, MAX_HITS_BYTES) == inflated(second, MAX_HITS_BYTES)


def known_argument(
    cell: tuple[str, str, int], samples: int, sums: Mapping[str, Any] | None, state: bytes | None
) -> dict[str, Any]:
    """One entry of the recipe's argument `known`."""
    unit, criterion, level = cell
    return {
        "unit": unit,
        "criterion": criterion,
        "level": level,
        "samples": samples,
        "sums": None if sums is None else dict(sums),
        "state": said_state(state),
    }
