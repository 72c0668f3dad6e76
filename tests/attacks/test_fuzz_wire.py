"""Mutated messages of a child: what stands on the worker's own side of the walls."""

from __future__ import annotations

import json
import os
import random
import tracemalloc

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.errors import ChildFlooded, ChildMalformed
from tests.attacks.fuzz import MUTATIONS, PLAIN, in_json
from worker.sandbox import wire

SOUND = [
    {"kind": "points", "body": {"points": [{"unit": "a.weight", "level": 5, "loss": 0.25}] * 3}},
    {"kind": "progress", "body": {"fraction": 0.5, "seconds": None}},
    {"value": {"format": "pt2", "layers": [{"path": "a", "shape": [None, 3]}], "text": "é😀"}},
]
RULES = settings(
    max_examples=MUTATIONS,
    derandomize="PRUNESCOPE_FUZZ" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def heard(stream: bytes, rng: random.Random) -> list[dict] | None:
    """The messages in a stream that comes in pieces; None if it is refused in words."""
    reader = wire.Reader(1 << 20, 1 << 22)
    found, at = [], 0
    try:
        while at < len(stream):
            size = rng.choice([1, 3, 4096])
            found += reader.feed(stream[at : at + size])
            at += size
    except (ChildMalformed, ChildFlooded) as error:
        return None if error.message and error.hint else [{"no words": error.message}] * 99
    return found


@RULES
@given(st.integers(0, 1 << 40))
def test_each_is_heard_or_refused(number: int) -> None:
    rng = random.Random(number)
    stream = b"".join(wire.encode(message) for message in rng.choices(SOUND, k=3))
    for _ in range(rng.randint(1, 3)):
        stream = rng.choice(PLAIN)(stream, rng) or b"\x00"
    for message in heard(stream, rng) or []:
        assert isinstance(message, dict)
        json.dumps(message, ensure_ascii=False, allow_nan=False).encode()


@RULES
@given(st.integers(0, 1 << 40))
def test_each_whose_length_is_right(number: int) -> None:
    rng = random.Random(number)
    body = json.dumps(rng.choice(SOUND)).encode()
    body = rng.choice([in_json, in_json, *PLAIN])(body, rng)
    for message in heard(len(body).to_bytes(4, "big") + body, rng) or []:
        json.dumps(message, ensure_ascii=False, allow_nan=False).encode()


def test_without_mutations_each_is_heard() -> None:
    stream = b"".join(map(wire.encode, SOUND))
    assert heard(stream, random.Random(0)) == SOUND


def test_a_length_costs_no_memory() -> None:
    """Four bytes promise 16 MB or 4 GB: nothing is set aside for what hasn't come."""
    tracemalloc.start()
    for size in ((1 << 20) - 1, 1 << 24, (1 << 32) - 1):
        heard(size.to_bytes(4, "big") + b"{}", random.Random(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
