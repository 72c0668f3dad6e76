"""Archives whose entries share their bytes: a bomb that needs no second layer, and other lies.

(David Fifield, "A better zip bomb", USENIX WOOT 2019.)
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import kit, zips
from tests.attacks.doors import DOORS
from tests.attacks.test_zip_bomb import packed_zeros


@pytest.mark.parametrize("door", DOORS)
def test_all_of_them_are_one(tmp_path: Path, canary: kit.Canary, door: str) -> None:
    """One member's bytes, listed under the name of every other."""
    entries = DOORS[door].entries()
    largest = max(entries.values(), key=len)
    first, *others = entries
    parts = [zips.Member(first.encode(), largest)]
    parts += [zips.Member(name.encode(), largest, at=0) for name in others]
    path = DOORS[door].written(tmp_path, zips.archive(parts))
    kit.refused(DOORS[door].read(path), "", canary)


@pytest.mark.parametrize("door", DOORS)
def test_a_quoted_bomb(tmp_path: Path, canary: kit.Canary, door: str) -> None:
    """2,000 entries of 64 MB that share one kernel of 64 kB: 128 GB in all."""
    folder = next(iter(DOORS[door].entries())).rpartition("/")[0] + "/"
    suffix = {"npz": ".npy", "images": ".png"}.get(door, "")
    kernel = zips.Member(f"{folder}0{suffix}".encode(), packed_zeros(64 << 20), 8, size=64 << 20)
    parts = [kernel] + [
        zips.Member(f"{folder}{number}{suffix}".encode(), kernel.data, 8, size=64 << 20, at=0)
        for number in range(1, 2000)
    ]
    path = DOORS[door].written(tmp_path, zips.archive(parts))
    assert path.stat().st_size < 1 << 20
    kit.refused(DOORS[door].read(path), "", canary, memory_bytes=150 * kit.MIB)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("place", [-1, 1, 7, 1 << 31, 0xFFFFFFFE])
def test_entries_that_are_elsewhere(
    tmp_path: Path, canary: kit.Canary, door: str, place: int
) -> None:
    parts = zips.members(DOORS[door].entries())
    last = parts[-1]
    parts.append(zips.Member(last.name + b"2", last.data, at=place & 0xFFFFFFFF))
    path = DOORS[door].written(tmp_path, zips.archive(parts))
    outcome = DOORS[door].read(path)
    kit.harmless(outcome, canary)


@pytest.mark.parametrize("door", DOORS)
def test_a_second_table_of_contents(tmp_path: Path, canary: kit.Canary, door: str) -> None:
    """Two archives in one file: whoever reads from the front sees another one."""
    one = zips.archive(zips.members(DOORS[door].entries()))
    other = zips.archive(
        [zips.Member(name.encode(), b"other") for name in DOORS[door].entries()], before=one
    )
    path = DOORS[door].written(tmp_path, other)
    kit.refused(DOORS[door].read(path), "", canary)


@pytest.mark.parametrize("door", DOORS)
def test_two_entries_of_one_name(tmp_path: Path, canary: kit.Canary, door: str) -> None:
    parts = zips.members(DOORS[door].entries())
    largest = max(parts, key=lambda member: len(member.data))
    path = DOORS[door].written(tmp_path, zips.archive([*parts, largest]))
    kit.refused(DOORS[door].read(path), "", canary)


@pytest.mark.parametrize("door", ["pt2", "pth", "npz"])
@pytest.mark.parametrize("lie", [{"local_name": b"m/other"}, {"local_method": 8}])
def test_two_accounts_of_one_entry(
    tmp_path: Path, canary: kit.Canary, door: str, lie: dict
) -> None:
    """The entry itself says otherwise than the table of contents does."""
    entries = DOORS[door].entries()
    largest = max(entries, key=lambda name: len(entries[name]))
    parts = [zips.Member(name.encode(), data, **(lie if name == largest else {}))
             for name, data in entries.items()]  # fmt: skip
    path = DOORS[door].written(tmp_path, zips.archive(parts))
    outcome = DOORS[door].read(path)
    kit.harmless(outcome, canary)
    if door != "npz":
        kit.refused(outcome)
