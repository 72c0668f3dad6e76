"""Entries whose names lead out of the folder they are unpacked to."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.attacks import kit, zips
from tests.attacks.doors import DOORS

LINK = (stat.S_IFLNK | 0o777) << 16
DEVICE = (stat.S_IFCHR | 0o666) << 16
FOLDER = (stat.S_IFDIR | 0o755) << 16 | 0x10
NAMES = [
    b"../dead",
    b"../../../../../../../../../../tmp/dead",
    b"/tmp/dead",
    b"..\\dead",
    b"C:\\dead",
    b"C:dead",
    b"\\\\server\\share\\dead",
    b"./dead",
    b"a/../../dead",
    b"a//dead",
    b"a/./dead",
    b"~/dead",
    b"$HOME/dead",
    b"dead\x00.png",
    b"dead\n",
    b"dead\x1b[2J",
    b"CON",
    b"aux.png",
    b"nul.npy",
    b"dead ",
    b"dead.",
    b"\xff\xfe",
    b"\xe2\x80\xaegnp.daed",
    b"x" * 60_000,
    b"/".join([b"d"] * 5_000),
    b"",
    b"/",
    b"..",
]


def mixed(door: str, *more: zips.Member) -> bytes:
    return zips.archive([*zips.members(DOORS[door].entries()), *more])


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
@pytest.mark.parametrize("door", DOORS)
def test_nothing_is_written_there(
    tmp_path: Path, canary: kit.Canary, door: str, name: bytes
) -> None:
    """Every write outside the import's own folder is an event that the kit fails on."""
    folder = next(iter(DOORS[door].entries())).rpartition("/")[0].encode()
    suffix = {"npz": b".npy", "images": b".png"}.get(door, b"")
    content = next(iter(DOORS[door].entries().values()))
    for full in (name, folder + b"/" + name + suffix):
        path = DOORS[door].written(tmp_path, mixed(door, zips.Member(full[:65_000], content)))
        outcome = DOORS[door].read(path)
        kit.harmless(outcome, canary)
        if outcome.error:
            kit.refused(outcome)
    assert not (tmp_path / "dead").exists()
    assert not Path("/tmp/dead").exists()


@pytest.mark.parametrize("attributes", [LINK, DEVICE, FOLDER], ids=["link", "device", "folder"])
@pytest.mark.parametrize("target", [b"/etc/passwd", b"..", b"/dev/zero"])
@pytest.mark.parametrize("door", DOORS)
def test_links_and_devices(
    tmp_path: Path, canary: kit.Canary, door: str, attributes: int, target: bytes
) -> None:
    """An entry that says it is a link: first the link, then something behind it."""
    folder = next(iter(DOORS[door].entries())).rpartition("/")[0].encode()
    suffix = {"npz": b".npy", "images": b".png"}.get(door, b"")
    link = zips.Member(folder + b"/link" + suffix, target, attributes=attributes)
    behind = zips.Member(folder + b"/link" + suffix + b"/dead", b"dead")
    for more in ([link], [link, behind]):
        path = DOORS[door].written(tmp_path, mixed(door, *more))
        outcome = DOORS[door].read(path)
        kit.harmless(outcome, canary)
        if outcome.error:
            kit.refused(outcome)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("method", [1, 6, 9, 12, 14, 93, 95, 98, 99])
def test_packed_in_another_way(tmp_path: Path, canary: kit.Canary, door: str, method: int) -> None:
    """Implode, bzip2, LZMA, zstd, xz, PPMd, encrypted: neither needed nor limited."""
    entries = DOORS[door].entries()
    largest = max(entries, key=lambda name: len(entries[name]))
    parts = [zips.Member(name.encode(), data, method=method if name == largest else 0)
             for name, data in entries.items()]  # fmt: skip
    kit.refused(DOORS[door].read(DOORS[door].written(tmp_path, zips.archive(parts))), "", canary)


@pytest.mark.parametrize("door", DOORS)
def test_encrypted(tmp_path: Path, canary: kit.Canary, door: str) -> None:
    entries = DOORS[door].entries()
    largest = max(entries, key=lambda name: len(entries[name]))
    parts = [zips.Member(name.encode(), data, flags=int(name == largest))
             for name, data in entries.items()]  # fmt: skip
    kit.refused(DOORS[door].read(DOORS[door].written(tmp_path, zips.archive(parts))), "", canary)
