"""Tables of contents without end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import kit, zips
from tests.attacks.doors import DOORS


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("shared", [True, False])
def test_millions_of_them(tmp_path: Path, canary: kit.Canary, door: str, shared: bool) -> None:
    """Each costs 50 bytes of the file, and far more once it is an object in memory."""
    folder = next(iter(DOORS[door].entries())).rpartition("/")[0] + "/"
    entries = zips.members(DOORS[door].entries())
    number = 600_000
    name = (f"{folder}{at:07x}".encode() for at in range(number))
    parts = (zips.Member(each, at=0 if shared else None) for each in name)
    path = DOORS[door].written(tmp_path, zips.archive([*entries, *parts]))
    kit.refused(DOORS[door].read(path), "", canary, memory_bytes=200 * kit.MIB)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("count", [0, 1, 60_000, 0xFFFF])
def test_a_number_that_is_a_lie(tmp_path: Path, canary: kit.Canary, door: str, count: int) -> None:
    raw = zips.archive(zips.members(DOORS[door].entries()), count=count)
    outcome = DOORS[door].read(DOORS[door].written(tmp_path, raw))
    kit.harmless(outcome, canary)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("size", [1 << 30, 0xFFFFFFFE])
def test_a_table_larger_than_the_file(
    tmp_path: Path, canary: kit.Canary, door: str, size: int
) -> None:
    sound = zips.archive(zips.members(DOORS[door].entries()))
    raw = sound[:-22] + zips.end(len(DOORS[door].entries()), size, 0)
    kit.refused(DOORS[door].read(DOORS[door].written(tmp_path, raw)), "", canary)


@pytest.mark.parametrize("door", DOORS)
def test_a_comment_full_of_ends(tmp_path: Path, canary: kit.Canary, door: str) -> None:
    """65,535 bytes of things that look like the end of an archive."""
    comment = (zips.end(1, 46, 0) * 4000)[:65_535]
    raw = zips.archive(zips.members(DOORS[door].entries()), comment=comment)
    kit.harmless(DOORS[door].read(DOORS[door].written(tmp_path, raw)), canary)


@pytest.mark.parametrize("door", DOORS)
def test_no_entries(tmp_path: Path, canary: kit.Canary, door: str) -> None:
    kit.refused(DOORS[door].read(DOORS[door].written(tmp_path, zips.archive([]))), "", canary)
