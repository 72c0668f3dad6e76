"""Messages between a child and its worker."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import ChildFlooded, ChildMalformed
from worker.sandbox import wire

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
MESSAGES = st.dictionaries(TEXT, VALUES, max_size=4)


def _reader() -> wire.Reader:
    return wire.Reader(1 << 20, 1 << 30)


@given(st.lists(MESSAGES, max_size=4), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_messages_survive_any_cutting(messages: list[dict], cuts: list[int]) -> None:
    data = b"".join(wire.encode(message) for message in messages)
    reader, heard, at = _reader(), [], 0
    for number in range(len(data)):
        size = cuts[number % len(cuts)]
        heard += list(reader.feed(data[at : at + size]))
        at += size
        if at >= len(data):
            break
    assert heard == messages
    assert not reader.half_read


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_refused(data: bytes) -> None:
    try:
        for message in _reader().feed(data):
            assert isinstance(message, dict)
    except (ChildMalformed, ChildFlooded):
        pass


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_is_not_finite_is_null(value: float) -> None:
    encoded = wire.encode({"a": value, "b": {"c": [value, 1]}, "d": np.array([value, 2.0])})
    assert wire.decode(encoded[4:]) == {"a": None, "b": {"c": [None, 1]}, "d": [None, 2.0]}


def test_numpy_is_sent_as_plain_numbers() -> None:
    sent = {"i": np.int64(3), "f": np.float64(0.5), "a": np.arange(3), "t": np.bool_(True)}
    assert wire.decode(wire.encode(sent)[4:]) == {"i": 3, "f": 0.5, "a": [0, 1, 2], "t": True}


def test_half_a_character_is_sent_as_a_question_mark() -> None:
    assert wire.decode(wire.encode({"name": "a\ud800b"})[4:]) == {"name": "a?b"}


@pytest.mark.parametrize("depth", [wire.MAX_DEPTH, wire.MAX_DEPTH + 1])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_depth_has_a_limit(depth: int, brackets: str) -> None:
    before, after = ("[", "]") if brackets == "[]" else ('{"a":', "}")
    body = '{"deep":' + before * (depth - 1) + "1" + after * (depth - 1) + "}"
    if depth <= wire.MAX_DEPTH:
        assert wire.decode(body.encode()) == json.loads(body)
    else:
        with pytest.raises(ChildMalformed, match="deeply"):
            wire.decode(body.encode())


def test_sums_have_a_limit() -> None:
    reader = wire.Reader(100, 250)
    frame = wire.encode({"text": "x" * 80})
    assert len(list(reader.feed(frame))) == 1
    assert len(list(reader.feed(frame))) == 1
    with pytest.raises(ChildFlooded):
        list(reader.feed(frame))


def test_one_message_has_a_limit_told_by_its_header_alone() -> None:
    with pytest.raises(ChildFlooded):
        list(wire.Reader(100, 1000).feed((101).to_bytes(4, "big")))
