"""Archives that grow a thousandfold: one large member, many small ones, one within another."""

from __future__ import annotations

import functools
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.attacks import kit, zips
from tests.attacks.doors import DOORS

ZEROS = 600 << 20


def npy_of_zeros(numbers: int) -> bytes:
    raw = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        raw, {"descr": "<f4", "fortran_order": False, "shape": (numbers // 3, 3)}
    )
    return raw.getvalue() + bytes(numbers // 3 * 12)


@functools.cache
def packed_zeros(size: int) -> bytes:
    """`size` zero bytes, deflated a piece at a time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = bytes(8 << 20)
    made = b"".join(packer.compress(piece) for _ in range(size // len(piece)))
    return made + packer.flush()


@pytest.mark.parametrize("door", DOORS)
def test_every_member_deflated(tmp_path: Path, canary: kit.Canary, door: str) -> None:
    """One entry of 600 MB that packs to 0.6 MB, where a sound file has its largest."""
    entries = DOORS[door].entries()
    victim = max(entries, key=lambda name: len(entries[name]))
    bomb = zips.Member(victim.encode(), packed_zeros(ZEROS), zips.DEFLATED, size=ZEROS, crc=0)
    parts = [bomb if name == victim else zips.Member(name.encode(), data)
             for name, data in entries.items()]  # fmt: skip
    path = DOORS[door].written(tmp_path, zips.archive(parts))
    assert path.stat().st_size < 1 << 20
    kit.refused(DOORS[door].read(path), "", canary, memory_bytes=100 * kit.MIB)


@pytest.mark.parametrize("door", DOORS)
def test_a_size_that_is_a_lie(tmp_path: Path, canary: kit.Canary, door: str) -> None:
    """It says 100 bytes and unpacks to 600 MB."""
    entries = DOORS[door].entries()
    victim = max(entries, key=lambda name: len(entries[name]))
    bomb = zips.Member(victim.encode(), packed_zeros(ZEROS), zips.DEFLATED, size=100, crc=0)
    parts = [bomb if name == victim else zips.Member(name.encode(), data)
             for name, data in entries.items()]  # fmt: skip
    path = DOORS[door].written(tmp_path, zips.archive(parts))
    kit.refused(DOORS[door].read(path), "", canary, memory_bytes=100 * kit.MIB)


def test_many_small_ones(tmp_path: Path, canary: kit.Canary) -> None:
    """200 arrays of 4 MB, none of which is worth a suspicion alone: together they are one bomb."""
    zeros = npy_of_zeros(1 << 20)
    parts = [zips.deflated(f"x_tune.{number}.npy", zeros) for number in range(200)]
    parts.append(zips.Member(b"y_tune.npy", npy_of_zeros(12)))
    path = DOORS["npz"].written(tmp_path, zips.archive(parts))
    outcome = DOORS["npz"].read(path)
    kit.refused(outcome, "decompression bomb", canary, memory_bytes=50 * kit.MIB)


@pytest.mark.parametrize("door", DOORS)
def test_archives_within_archives(tmp_path: Path, canary: kit.Canary, door: str) -> None:
    """42.zip and its like: an entry that is an archive is bytes, and stays packed."""
    inner = zips.archive([zips.Member(b"0", packed_zeros(64 << 20), 8, size=64 << 20, crc=0)])
    for _ in range(5):
        inner = zips.archive([zips.deflated(f"{n}.zip", inner) for n in range(8)])
    top = next(iter(DOORS[door].entries())).split("/")[0]
    entries = DOORS[door].entries() | {f"{top}/more.zip": inner}
    path = DOORS[door].written(tmp_path, zips.archive(zips.members(entries)))
    kit.harmless(DOORS[door].read(path), canary, memory_bytes=100 * kit.MIB)


def test_an_honest_archive_of_that_size_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "honest.npz"
    np.savez_compressed(
        path,
        x_tune=rng.integers(0, 8, (4000, 300), dtype=np.uint8),
        y_tune=np.repeat(np.arange(10), 400),
    )
    outcome = kit.read_dataset(path)
    kit.harmless(outcome)
    assert outcome.value["splits"]["tune"] == 4000
    with zipfile.ZipFile(path) as archive:
        assert archive.infolist()[1].compress_size * 100 < archive.infolist()[1].file_size
