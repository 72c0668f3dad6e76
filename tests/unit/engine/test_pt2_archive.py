"""Zip archives that break the rules round a `.pt2` file: each is refused with a sentence."""

from __future__ import annotations

import struct
import time
import warnings
import zipfile
from pathlib import Path

import pytest

from tests.unit.engine.archives import MODEL, entries_of, pack, refusal, small
from worker.engine.formats.pt2 import load_model


def test_the_sound_archive_is_read_even_when_another_tool_packed_it(tmp_path: Path) -> None:
    entries = entries_of(small(tmp_path))
    model = load_model(pack(tmp_path / "again.pt2", entries), "pt2")
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_compressed_entries(tmp_path: Path) -> None:
    entries = entries_of(small(tmp_path))
    path = pack(tmp_path / "a.pt2", entries, method=zipfile.ZIP_DEFLATED)
    assert "compressed" in refusal(path)


def test_duplicate_names(tmp_path: Path) -> None:
    path = small(tmp_path)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(MODEL, b"{}")
    assert "two entries named m/models/model.json" in refusal(path)


@pytest.mark.parametrize("name", ["m/../../etc/x", "/abs", "m//x", "m\\x", "m/a:b", "m/\x01"])
def test_names_that_are_paths_elsewhere(tmp_path: Path, name: str) -> None:
    entries = entries_of(small(tmp_path))
    entries[name] = b"x"
    assert "entry with the name" in refusal(pack(tmp_path / "a.pt2", entries))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_truncated(tmp_path: Path, share: float) -> None:
    path = small(tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "cut short" in refusal(path)


def test_a_flipped_bit_in_a_weight(tmp_path: Path) -> None:
    path = small(tmp_path)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("m/data/weights/weight_0")
    raw = bytearray(path.read_bytes())
    names, extras = struct.unpack_from("<HH", raw, info.header_offset + 26)
    raw[info.header_offset + 30 + names + extras] ^= 1
    path.write_bytes(raw)
    assert "checksum of m/data/weights/weight_0 is wrong" in refusal(path)


def patched_directory(path: Path, name: str, offset: int, form: str, value: int) -> Path:
    """Change one field of an entry in the table of contents."""
    raw = bytearray(path.read_bytes())
    at = raw.rfind(b"PK\x05\x06")
    at = struct.unpack_from("<I", raw, at + 16)[0]
    while True:
        length, extra, comment = struct.unpack_from("<3H", raw, at + 28)
        if raw[at + 46 : at + 46 + length] == name.encode():
            struct.pack_into(form, raw, at + offset, value)
            path.write_bytes(raw)
            return path
        at += 46 + length + extra + comment


def test_an_entry_longer_than_the_file(tmp_path: Path) -> None:
    path = small(tmp_path)
    for offset in (20, 24):
        patched_directory(path, "m/data/weights/weight_0", offset, "<I", 1 << 30)
    assert "beyond the end of the file" in refusal(path)


def test_entries_that_overlap(tmp_path: Path) -> None:
    path = small(tmp_path)
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("m/data/weights/weight_0").file_size + 200
    for offset in (20, 24):
        patched_directory(path, "m/data/weights/weight_0", offset, "<I", size)
    assert "overlaps" in refusal(path)


def test_two_sizes(tmp_path: Path) -> None:
    path = patched_directory(small(tmp_path), "m/data/weights/weight_0", 24, "<I", 1)
    assert "compressed" in refusal(path)


def test_an_entry_that_points_elsewhere(tmp_path: Path) -> None:
    path = patched_directory(small(tmp_path), "m/data/weights/weight_0", 42, "<I", 7)
    assert "not where it should be" in refusal(path)


def test_encrypted(tmp_path: Path) -> None:
    path = patched_directory(small(tmp_path), "m/data/weights/weight_0", 8, "<H", 1)
    assert "encrypted" in refusal(path)


def test_a_table_of_contents_that_claims_too_much(tmp_path: Path) -> None:
    path = small(tmp_path)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<HH", raw, raw.rfind(b"PK\x05\x06") + 8, 60_000, 60_000)
    path.write_bytes(raw)
    assert "60,000 entries" in refusal(path)


def test_thousands_of_entries_cost_no_time(tmp_path: Path) -> None:
    entries = entries_of(small(tmp_path))
    entries |= {f"m/data/extra/{at}": b"" for at in range(50_100)}
    path = pack(tmp_path / "a.pt2", entries)
    start = time.perf_counter()
    assert "at most 50,000" in refusal(path)
    assert time.perf_counter() - start < 1.0
