"""Parquet files, written by hand, that lie about rows, pages and sizes or carry pickles.

The form: https://github.com/apache/parquet-format (parquet.thrift); numbers are Thrift's compact
protocol.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.attacks import kit, pickles

pytest.importorskip("arro3.io")
INT32, PLAIN, RLE_DICTIONARY, RLE = 1, 0, 8, 3
OPTIONS = {"target": "kind"}


def varint(value: int) -> bytes:
    value %= 1 << 64
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def zigzag(value: int) -> bytes:
    return varint((value << 1) ^ (value >> 63))


def struct_of(fields: dict[int, Any]) -> bytes:
    """A Thrift struct: ints as i64, bytes as text, lists as lists, dicts as structs."""
    made, last = b"", 0
    for number, value in fields.items():
        kind = 8 if isinstance(value, bytes) else 9 if isinstance(value, list) else 12
        kind = 6 if isinstance(value, int) else kind
        # Thrift's i32 and i64 are written alike; enumerations and sizes have to say i32.
        kind = 5 if isinstance(value, Small) else kind
        made += bytes([(number - last) << 4 | kind]) + encoded(value)
        last = number
    return made + b"\0"


class Small(int):
    """An i32."""


def encoded(value: Any) -> bytes:
    if isinstance(value, bytes):
        return varint(len(value)) + value
    if isinstance(value, int):
        return zigzag(value)
    if isinstance(value, dict):
        return struct_of(value)
    kind = 5 if isinstance(value[0], int) else 8 if isinstance(value[0], bytes) else 12
    head = bytes([len(value) << 4 | kind]) if len(value) < 15 else bytes([0xF0 | kind])
    head += varint(len(value)) if len(value) >= 15 else b""
    return head + b"".join(map(encoded, value))


def page(kind: int, header: dict[int, Any], data: bytes, **lies: int) -> bytes:
    place = {0: 5, 2: 7}[kind]
    size = lies.get("size", len(data))
    return struct_of({1: Small(kind), 2: Small(size), 3: Small(len(data)), place: header}) + data


def table(
    rows: int = 40,
    *,
    columns: int = 2,
    values: int | None = None,
    in_group: int | None = None,
    in_page: int | None = None,
    dictionary: int = 2,
    groups: int = 1,
    codec: int = 0,
    more: list[dict[int, Any]] | None = None,
    page_size: dict[str, int] | None = None,
    offset: int | None = None,
    name: bytes = b"a",
) -> bytes:
    """A table of columns of 1s and 2s, each one run in one page."""
    raw, chunks = b"PAR1", []
    names = [name + str(n).encode() for n in range(columns - 1)] + [b"kind"]
    counted = rows if values is None else values
    for each in names:
        dict_at = len(raw)
        words = (1).to_bytes(4, "little") + (2).to_bytes(4, "little")
        raw += page(2, {1: Small(dictionary), 2: Small(PLAIN)}, words)
        data_at = len(raw)
        half = rows // 2
        runs = b"\x01" + varint(half << 1) + b"\0" + varint((rows - half) << 1) + b"\1"
        head = {1: Small(in_page or min(rows, (1 << 31) - 1)), 2: Small(RLE_DICTIONARY),
                3: Small(RLE), 4: Small(RLE)}  # fmt: skip
        raw += page(0, head, runs, **(page_size or {}))
        size = len(raw) - dict_at
        about = {1: Small(INT32), 2: [Small(PLAIN), Small(RLE_DICTIONARY)], 3: [each],
                 4: Small(codec), 5: counted, 6: size, 7: size,
                 9: data_at if offset is None else offset, 11: dict_at}  # fmt: skip
        chunks.append({2: 0, 3: about})
    schema = [{4: b"schema", 5: Small(columns)}]
    schema += [{1: Small(INT32), 3: Small(0), 4: each} for each in names]
    claimed = rows if in_group is None else in_group
    group = {1: chunks, 2: len(raw), 3: claimed}
    footer: dict[int, Any] = {1: Small(1), 2: schema, 3: claimed * groups, 4: [group] * groups}
    if more:
        footer[5] = more
    foot = struct_of(footer)
    return raw + foot + len(foot).to_bytes(4, "little") + b"PAR1"


LIES: dict[str, dict[str, Any]] = {
    "two billion rows in 300 bytes": {"rows": (1 << 31) - 2},
    "rows that aren't there": {"in_group": 1 << 40},
    "rows beyond 64 bits": {"in_group": -1},
    "values that aren't there": {"values": 1 << 50},
    "a page of 2^31 values": {"in_page": (1 << 31) - 1},
    "a page of -1 values": {"in_page": -1},
    "a dictionary of 2^31 words": {"dictionary": (1 << 31) - 1},
    "a page of 2^31 bytes": {"page_size": {"size": (1 << 31) - 1}},
    "a page of -1 bytes": {"page_size": {"size": -1}},
    "a page somewhere else": {"offset": 1 << 40},
    "a page before the file": {"offset": -4},
    "a page within itself": {"offset": 4},
    "another packing": {"codec": 2},
    "no packing there is": {"codec": 99},
    "6,000 columns": {"columns": 6000},
    "names without end": {"name": b"x" * 100_000},
}


def read(folder: Path, raw: bytes, **more: Any) -> kit.Outcome:
    path = folder / "evil.parquet"
    path.write_bytes(raw)
    return kit.read_dataset(path, options=OPTIONS, **more)


def test_without_lies_it_is_read(tmp_path: Path) -> None:
    outcome = read(tmp_path, table())
    assert outcome.error is None, outcome.error
    assert sum(outcome.value["splits"].values()) == 40


# What nobody needs to read the rows that are there.
UNREAD = {"rows that aren't there", "rows beyond 64 bits", "values that aren't there",
          "a page of 2^31 bytes", "a page somewhere else", "a page before the file",
          "a page within itself"}  # fmt: skip
# The reader of arro3 takes the room first, and ends its process if there is none: behind walls that
# is a failed job with a sentence (test_walls_memory.py).
ENDS_ITS_PROCESS = {"a dictionary of 2^31 words": -6}


@pytest.mark.parametrize("lie", LIES)
def test_it_costs_nothing(tmp_path: Path, canary: kit.Canary, lie: str) -> None:
    outcome = read(tmp_path, table(**LIES[lie]), seconds=100)
    if outcome.died:
        assert outcome.died == ENDS_ITS_PROCESS[lie]
        return
    kit.harmless(outcome, canary, seconds=60, memory_bytes=400 * kit.MIB)
    if outcome.error:
        kit.refused(outcome, seconds=60, memory_bytes=400 * kit.MIB)
    else:
        assert lie in UNREAD
        assert sum(outcome.value["splits"].values()) == 40


@pytest.mark.parametrize("length", [0, 1, 1 << 20, (1 << 31) - 1, (1 << 32) - 1])
@pytest.mark.parametrize(
    "footer",
    [
        b"",
        b"\xff" * 64,
        b"\x19" * 4096,
        b"\x1c" * 100_000,
        b"\x19\xfc\xff\xff\xff\xff\x07",
        b"\x18\xff\xff\xff\xff\x07",
    ],
)
def test_footers_of_anything(
    tmp_path: Path, canary: kit.Canary, footer: bytes, length: int
) -> None:
    """Nesting, lists and texts without end: the footer is parsed before anything is known."""
    raw = b"PAR1" + footer + length.to_bytes(4, "little") + b"PAR1"
    kit.refused(read(tmp_path, raw), "", canary, memory_bytes=400 * kit.MIB)


@pytest.mark.parametrize("key", [b"pandas", b"ARROW:schema", b"huggingface", b"geo", b"ray.data"])
def test_pickles_in_the_metadata(tmp_path: Path, canary: kit.Canary, key: bytes) -> None:
    """Extension types are pickles in some libraries: here metadata are not looked at."""
    pickle = pickles.whole(pickles.shell(canary.command))
    for value in (pickle, base64.b64encode(pickle), b'{"pandas_version": "__import__(1)"}'):
        about = [{1: key, 2: value}, {1: b"ARROW:extension:name", 2: b"arrow.py_extension_type"},
                 {1: b"ARROW:extension:metadata", 2: pickle}]  # fmt: skip
        outcome = read(tmp_path, table(more=about))
        kit.harmless(outcome, canary)
        if outcome.error:
            kit.refused(outcome)
