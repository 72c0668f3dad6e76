"""What a child made is taken only when it is a plain file of its own folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.domain.errors import ChildMalformed, TooLarge
from worker.sandbox.folders import Folder, take_file


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(b"canary")
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "file").write_bytes(b"below")
    (folder / "file").write_bytes(b"12345678")
    return folder


@pytest.mark.parametrize("settled", [True, False])
def test_a_plain_file_leaves_the_folder(place: Path, tmp_path: Path, settled: bool) -> None:
    to = tmp_path / "out" / "file"
    assert take_file(Folder(place, settled), "file", to, 8) == to
    assert to.read_bytes() == b"12345678"
    assert not (place / "file").exists()
    assert to.stat().st_mode & 0o777 == 0o600
    assert os.listdir(to.parent) == ["file"]


def test_while_the_child_runs_it_is_a_copy(place: Path, tmp_path: Path) -> None:
    """The child may still have the file open; what was taken doesn't change any more."""
    with open(place / "file", "r+b") as still_open:
        take_file(place, "file", tmp_path / "taken", 100)
        still_open.write(b"HOSTILE!")
    assert (tmp_path / "taken").read_bytes() == b"12345678"


def _symlink(place: Path) -> None:
    (place / "bad").symlink_to(place.parent / "secret")


def _symlink_to_own(place: Path) -> None:
    (place / "bad").symlink_to("file")


def _fifo(place: Path) -> None:
    os.mkfifo(place / "bad")


def _hard_link(place: Path) -> None:
    os.link(place.parent / "secret", place / "bad")


def _folder(place: Path) -> None:
    (place / "bad").mkdir()


def _socket(place: Path) -> None:
    import socket

    before = os.getcwd()
    os.chdir(place)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("bad")
    finally:
        os.chdir(before)


def _nothing(place: Path) -> None:
    pass


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize(
    "make", [_symlink, _symlink_to_own, _fifo, _hard_link, _folder, _socket, _nothing]
)
def test_anything_else_is_refused(
    place: Path, tmp_path: Path, make: Callable[[Path], None], settled: bool
) -> None:
    make(place)
    with pytest.raises(ChildMalformed) as caught:
        take_file(Folder(place, settled), "bad", tmp_path / "taken", 100)
    assert str(tmp_path) not in caught.value.message
    assert not (tmp_path / "taken").exists()
    assert (tmp_path / "secret").read_bytes() == b"canary"


@pytest.mark.parametrize(
    "name", ["../secret", "below/file", "/etc/passwd", "..", ".", "", "file\0", "./file"]
)
def test_a_name_is_one_name(place: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ChildMalformed):
        take_file(place, name, tmp_path / "taken", 100)
    assert not (tmp_path / "taken").exists()


@pytest.mark.parametrize("settled", [True, False])
def test_a_large_file_is_refused(place: Path, tmp_path: Path, settled: bool) -> None:
    with pytest.raises(TooLarge):
        take_file(Folder(place, settled), "file", tmp_path / "taken", 7)
    assert not (tmp_path / "taken").exists()


def test_a_folder_swapped_for_a_link_is_refused(place: Path, tmp_path: Path) -> None:
    swapped = tmp_path / "swapped"
    swapped.symlink_to(place)
    with pytest.raises((OSError, ChildMalformed)):
        take_file(swapped, "file", tmp_path / "taken", 100)
