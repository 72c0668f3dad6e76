"""JSON that is small to write and large to hold, or that two readers read in two ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.attacks import kit
from tests.attacks.exported import sound, written
from tests.attacks.test_sizes_in_safetensors import READ
from tests.attacks.test_sizes_in_safetensors import written as header_of
from tests.unit.engine.archives import MODEL, WEIGHTS

BOMBS: dict[str, Callable[[], bytes]] = {
    "depth": lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "depth of lists": lambda: b'{"a":' + b"[" * 1_000_000,
    "parts": lambda: b'{"a":[' + b"[]," * 5_000_000 + b"[]]}",
    "keys": lambda: b"{" + b",".join(b'"%d":0' % n for n in range(2_100_000)) + b"}",
    "keys that collide": lambda: b"{" + b",".join(b'"a":%d' % n for n in range(500_000)) + b"}",
    "one long text": lambda: b'{"a":"' + b" " * (65 << 20) + b'"}',
    "escapes": lambda: b'{"a":"' + b"\\u0000" * 2_000_000 + b'"}',
    "a number of a million digits": lambda: b'{"a":' + b"9" * 1_000_000 + b"}",
    "a number of 4,000 digits": lambda: b'{"a":' + b"9" * 4_000 + b"}",
    "an exponent": lambda: b'{"a":1e999999999}',
    "not a number": lambda: b'{"a":NaN,"b":-Infinity}',
    "half a character": lambda: b'{"\\ud800":"\\udfff"}',
    "a zero byte": lambda: b'{"a\\u0000b":1}',
    "UTF-16": lambda: '{"a":1}'.encode("utf-16"),
    "UTF-32": lambda: '{"a":1}'.encode("utf-32"),
    "no UTF-8": lambda: b'{"a":"\xff\xfe"}',
    "a comment": lambda: b'{"a":1}//',
    "two of them": lambda: b"{}{}",
    "a list": lambda: b"[]",
    "nothing": lambda: b"",
    "null": lambda: b"null",
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("where", [MODEL, WEIGHTS], ids=["graph", "weights"])
def test_in_pt2(tmp_path: Path, canary: kit.Canary, bomb: str, where: str) -> None:
    path = written(tmp_path, sound() | {where: BOMBS[bomb]()})
    kit.refused(kit.read_model(path), "", canary, memory_bytes=500 * kit.MIB)


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("kind", READ)
def test_in_safetensors(tmp_path: Path, canary: kit.Canary, bomb: str, kind: str) -> None:
    path = header_of(tmp_path, BOMBS[bomb]())
    kit.refused(READ[kind](path), "", canary, memory_bytes=250 * kit.MIB)


@pytest.mark.parametrize(
    "bomb",
    [
        "not a number",
        "half a character",
        "keys that collide",
        "a number of 4,000 digits",
        "escapes",
        "a zero byte",
    ],
)
def test_beside_a_sound_graph(tmp_path: Path, canary: kit.Canary, bomb: str) -> None:
    """What is not needed may be anything: the network is read, or refused in words."""
    entries = sound()
    entries |= {MODEL: entries[MODEL][:-1] + b"," + BOMBS[bomb]()[1:]}
    outcome = kit.read_model(written(tmp_path, entries))
    kit.harmless(outcome, canary, memory_bytes=250 * kit.MIB)
    if outcome.error:
        kit.refused(outcome)


def test_a_name_twice(tmp_path: Path, canary: kit.Canary) -> None:
    """Whoever checks the first and uses the last can be fooled; here there is only one."""
    raw = sound()[WEIGHTS].decode()
    twice = raw.replace('"use_pickle": false', '"use_pickle": true, "use_pickle": false', 1)
    assert twice != raw
    outcome = kit.read_model(written(tmp_path, sound() | {WEIGHTS: twice.encode()}))
    kit.harmless(outcome, canary)
    header = json.dumps({"a": {"dtype": "U8", "shape": [400], "data_offsets": [0, 400]}})
    both = f"{header[:-1]},{header[1:]}".encode()
    for read in READ.values():
        assert "twice" in kit.refused(read(header_of(tmp_path, both)), "", canary)
