"""Blobs: under their own hash or not at all, whatever happens on the way."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import obstore
import pytest

from app.domain.errors import Conflict, InvalidInput, NotFound, StorageFull
from app.store import blobs as blobs_module
from app.store import datasets, models
from app.store.blobs import Blobs, drop_unreferenced, hold
from tests.integration.store.things import Things

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(params=["file", "memory"])
def any_blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """A local store, and one that is only reached through obstore, as S3 is."""
    data_dir = tmp_path / "data"
    url = (data_dir / "blobs").as_uri() if request.param == "file" else "memory:///"
    return Blobs(url, data_dir)


def put(blobs: Blobs, content: bytes = CONTENT) -> tuple[str, int]:
    with blobs.stage() as staged:
        for start in range(0, len(content), 999):
            staged.write(content[start : start + 999])
        return blobs.commit(staged)


def incoming(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "data" / "incoming").iterdir())


def test_bytes_come_back_under_their_hash(any_blobs: Blobs, tmp_path: Path) -> None:
    assert not any_blobs.exists(SHA256)
    assert put(any_blobs) == (SHA256, len(CONTENT))
    assert any_blobs.exists(SHA256)
    assert b"".join(any_blobs.chunks(SHA256)) == CONTENT
    assert any_blobs.local_path(SHA256).read_bytes() == CONTENT
    assert any_blobs.local_path(SHA256).read_bytes() == CONTENT
    assert incoming(tmp_path) == []


def test_the_same_bytes_twice_are_one_blob(any_blobs: Blobs, tmp_path: Path) -> None:
    put(any_blobs)
    before = any_blobs.local_path(SHA256).stat().st_ino
    assert put(any_blobs) == (SHA256, len(CONTENT))
    assert any_blobs.local_path(SHA256).stat().st_ino == before
    assert incoming(tmp_path) == []


def test_a_deleted_blob_is_gone(any_blobs: Blobs) -> None:
    put(any_blobs)
    path = any_blobs.local_path(SHA256)
    any_blobs.delete(SHA256)
    any_blobs.delete(SHA256)
    assert not any_blobs.exists(SHA256)
    assert not path.exists()
    for ask in (any_blobs.local_path, any_blobs.chunks):
        with pytest.raises(NotFound, match="does not have the file"):
            ask(SHA256)


def test_an_empty_file_is_a_file(any_blobs: Blobs) -> None:
    sha256, size = put(any_blobs, b"")
    assert (sha256, size) == (hashlib.sha256(b"").hexdigest(), 0)
    assert any_blobs.local_path(sha256).read_bytes() == b""


@pytest.mark.parametrize("name", ["", "../../etc/passwd", SHA256.upper(), SHA256 + "/", "a" * 63])
def test_only_a_hash_is_a_name(any_blobs: Blobs, name: str) -> None:
    with pytest.raises(ValueError, match="not a sha256"):
        any_blobs.local_path(name)


def test_a_file_is_put_by_copy(any_blobs: Blobs, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(CONTENT)
    assert any_blobs.put_file(path) == (SHA256, len(CONTENT))
    assert path.read_bytes() == CONTENT
    path.write_bytes(b"changed")
    assert any_blobs.local_path(SHA256).read_bytes() == CONTENT


def test_the_local_file_is_the_blob_itself(blobs: Blobs, tmp_path: Path) -> None:
    with blobs.stage() as staged:
        staged.write(CONTENT)
        inode = staged.path.stat().st_ino
        blobs.commit(staged)
    path = blobs.local_path(SHA256)
    assert path == tmp_path / "data" / "blobs" / SHA256[:2] / SHA256
    assert path.stat().st_ino == inode  # moved, never copied
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:7] == b"weights"


def test_hash_and_size_are_known_on_the_way(blobs: Blobs) -> None:
    with blobs.stage() as staged:
        staged.write(b"ab")
        assert (staged.sha256, staged.bytes) == (hashlib.sha256(b"ab").hexdigest(), 2)
        staged.write(memoryview(b"c"))
        assert (staged.sha256, staged.bytes) == (hashlib.sha256(b"abc").hexdigest(), 3)


def test_an_upload_given_up_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    with blobs.stage() as staged:
        staged.write(CONTENT)
        assert len(incoming(tmp_path)) == 1
    assert incoming(tmp_path) == []
    staged.discard()


def test_a_full_disk_is_said_in_words_and_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    staged = blobs.stage()
    # The kernel itself answers "no space left on device".
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, staged._file.fileno())
    os.close(full)
    with pytest.raises(StorageFull, match="full"):
        staged.write(b"x")
    assert incoming(tmp_path) == []


def test_a_disk_that_is_full_at_the_last_step(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(blobs_module.os, "link", no_space)
    with pytest.raises(StorageFull):
        put(blobs)
    assert incoming(tmp_path) == []
    assert not blobs.exists(SHA256)


def test_a_file_system_without_links(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(blobs_module.os, "link", no_link)
    assert put(blobs) == put(blobs) == (SHA256, len(CONTENT))
    path = blobs.local_path(SHA256)
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert [found.name for found in path.parent.iterdir()] == [SHA256]
    assert incoming(tmp_path) == []


CRASHING = """
import os, sys, time
from pathlib import Path
from app.store.blobs import Blobs
data = Path(sys.argv[1])
staged = Blobs((data / "blobs").as_uri(), data).stage()
staged.write(b"half of it")
print("staged", flush=True)
time.sleep(60)
"""


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(
    blobs: Blobs, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CRASHING, str(tmp_path / "data")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "staged\n"
    (leftover,) = incoming(tmp_path)
    os.utime(leftover, (1, 1))

    def open_again() -> None:
        Blobs((tmp_path / "data" / "blobs").as_uri(), tmp_path / "data")

    open_again()
    assert incoming(tmp_path) == [leftover]  # its process lives and holds it
    process.kill()
    process.communicate()
    open_again()
    assert incoming(tmp_path) == []
    # A young one may be about to be locked.
    (tmp_path / "data" / "incoming" / "young").write_bytes(b"")
    open_again()
    assert len(incoming(tmp_path)) == 1


def test_many_upload_the_same_at_once(blobs: Blobs, tmp_path: Path) -> None:
    found: list[tuple[str, int]] = []
    threads = [threading.Thread(target=lambda: found.append(put(blobs))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(SHA256, len(CONTENT))] * 8
    assert incoming(tmp_path) == []


def test_a_large_file_needs_no_memory(blobs: Blobs, tmp_path: Path) -> None:
    chunk = os.urandom(1 << 20)
    tracemalloc.start()
    with blobs.stage() as staged:
        for _ in range(48):
            staged.write(chunk)
        sha256, size = blobs.commit(staged)
    assert sum(map(len, blobs.chunks(sha256))) == size == 48 << 20
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_damaged_remote_blob_is_not_used(tmp_path: Path) -> None:
    blobs = Blobs("memory:///", tmp_path / "data")
    put(blobs)
    obstore.put(blobs._remote, f"{SHA256[:2]}/{SHA256}", b"something else")
    with pytest.raises(NotFound, match="other bytes"):
        blobs.local_path(SHA256)
    assert incoming(tmp_path) == []
    assert list((tmp_path / "data" / "cache").rglob("*")) == []


def test_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not the address"):
        Blobs("somewhere", tmp_path)


def test_a_blob_goes_with_the_last_row_that_refers_to_it(things: Things) -> None:
    model, dataset = things.model(CONTENT), things.dataset(CONTENT)
    drop_unreferenced(things.store, things.blobs, [SHA256])
    assert things.blobs.exists(SHA256)
    models.delete(things.store, things.blobs, model.id)
    assert things.blobs.exists(SHA256)
    datasets.delete(things.store, things.blobs, dataset.id)
    assert not things.blobs.exists(SHA256)


def test_whoever_refers_to_a_blob_has_it(things: Things) -> None:
    """Uploads and deletions of the same bytes at once: never a row without its file."""
    broken: list[int] = []
    refused = 0

    def come_and_go() -> None:
        nonlocal refused
        for _ in range(10):
            try:
                model = things.importing_model(CONTENT)
            except Conflict:
                refused += 1
                continue
            if not things.blobs.exists(SHA256):
                broken.append(model.id)
            models.delete(things.store, things.blobs, model.id)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == []
    assert refused < 40
    assert not things.blobs.exists(SHA256)


def test_a_blob_deleted_before_its_row_came_is_a_conflict(things: Things) -> None:
    with pytest.raises(Conflict, match="deleted"), things.store.write() as session:
        hold(session, things.blobs, SHA256)
