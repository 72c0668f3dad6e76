"""Bytes, kept under their own sha256: uploads and checkpoints.

An upload is staged in the data directory while its hash is taken, then put in its place in one
step. In a local store that place is a read-only file which can be mapped into memory; in a remote
one (S3 or anything else that obstore knows) a copy is fetched into the cache when it is needed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import from_url
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.errors import Conflict, InvalidInput, NotFound, StorageFull
from app.store import dialects
from app.store.store import Store
from app.store.tables import Dataset, Model, Run

CHUNK_BYTES = 1 << 20
LEFTOVER_AGE_SECONDS = 60.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Staged:
    """A file on its way in. Its owner holds a lock on it, so that nobody takes it for a leftover.

    As a context manager it discards itself at the end unless it was committed.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / secrets.token_hex(16)
        self.bytes = 0
        self._hash = hashlib.sha256()
        with _reporting_full():
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._file = os.fdopen(descriptor, "wb", buffering=0)

    @property
    def sha256(self) -> str:
        """The hash, in hex, of everything written so far."""
        return self._hash.hexdigest()

    def write(self, chunk: bytes | memoryview) -> None:
        """Append. Raises StorageFull; then nothing is left of the file."""
        view = memoryview(chunk).cast("B")
        try:
            with _reporting_full():
                rest = view
                while rest:
                    rest = rest[self._file.write(rest) :]
        except BaseException:
            self.discard()
            raise
        self._hash.update(view)
        self.bytes += len(view)

    def settle(self) -> None:
        """Get every byte onto the disk, and let nobody write to the file any more."""
        with _reporting_full():
            os.fsync(self._file.fileno())
        os.fchmod(self._file.fileno(), 0o444)

    def discard(self) -> None:
        """Remove the file. Does nothing the second time, or after it was committed."""
        if not self._file.closed:
            self.path.unlink(missing_ok=True)
            self._file.close()

    def __enter__(self) -> Staged:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()


class Blobs:
    """The blob store at `url` (`file:///…`, `s3://bucket/prefix` …), staging in `data_dir`."""

    def __init__(self, url: str, data_dir: Path) -> None:
        parts = urlsplit(url)
        self._root = Path(unquote(parts.path)) if parts.scheme == "file" else None
        self._incoming = data_dir / "incoming"
        self._cache = data_dir / "cache"
        if self._root is None:
            if not parts.scheme:
                raise InvalidInput(
                    f"{url!r} is not the address of a blob store.",
                    "Set PRUNESCOPE_BLOB_URL to something like file:///srv/blobs or s3://bucket.",
                )
            self._remote = from_url(url)
        folders = [self._incoming, self._root or self._cache]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        self.remove_leftovers()

    def stage(self) -> Staged:
        """A new, empty file to write an upload to. Raises StorageFull."""
        return Staged(self._incoming)

    def commit(self, staged: Staged) -> tuple[str, int]:
        """Put what was staged in its place, unless the same bytes are there. `(sha256, bytes)`.

        Raises StorageFull. The staged file is gone afterwards, either way.
        """
        sha256, size = staged.sha256, staged.bytes
        try:
            staged.settle()
            if self._root is not None:
                _place(staged.path, _spread(self._root, sha256))
            elif not self.exists(sha256):
                # The name is the hash, so that writing twice writes the same.
                obstore.put(self._remote, _key(sha256), staged.path)
        finally:
            staged.discard()
        return sha256, size

    def put_file(self, path: Path) -> tuple[str, int]:
        """Store a copy of the file at `path`; returns `(sha256, bytes)`. Raises StorageFull."""
        with self.stage() as staged, path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                staged.write(chunk)
            return self.commit(staged)

    def exists(self, sha256: str) -> bool:
        if self._root is not None:
            return _spread(self._root, sha256).exists()
        try:
            obstore.head(self._remote, _key(sha256))
        except FileNotFoundError:
            return False
        return True

    def local_path(self, sha256: str) -> Path:
        """A file with these bytes, for reading only; fetched first when the store is remote.

        Raises NotFound, StorageFull.
        """
        if self._root is not None:
            path = _spread(self._root, sha256)
            if not path.exists():
                raise _missing(sha256)
            return path
        path = _spread(self._cache, sha256)
        if not path.exists():
            self._fetch(sha256, path)
        return path

    def chunks(self, sha256: str) -> Iterator[bytes]:
        """The bytes, in pieces of about a megabyte. Raises NotFound at the call, not later."""
        if self._root is not None:
            return _file_chunks(self.local_path(sha256))
        try:
            stream = obstore.get(self._remote, _key(sha256)).stream(min_chunk_size=CHUNK_BYTES)
        except FileNotFoundError as error:
            raise _missing(sha256) from error
        return (bytes(chunk) for chunk in stream)

    def delete(self, sha256: str) -> None:
        """Remove the bytes, whoever refers to them; see `drop_unreferenced`. Absent is fine."""
        if self._root is not None:
            _spread(self._root, sha256).unlink(missing_ok=True)
            return
        with suppress(FileNotFoundError):
            obstore.delete(self._remote, _key(sha256))
        _spread(self._cache, sha256).unlink(missing_ok=True)

    def _fetch(self, sha256: str, path: Path) -> None:
        with self.stage() as staged:
            for chunk in self.chunks(sha256):
                staged.write(chunk)
            if staged.sha256 != sha256:
                raise NotFound(
                    f"The blob store has other bytes than it should under {sha256[:12]}….",
                    "Upload the file again; the stored copy is damaged.",
                )
            staged.settle()
            _place(staged.path, path)

    def remove_leftovers(self) -> None:
        """Remove what dead processes left half-written."""
        for path in self._incoming.iterdir():
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Young ones may have been created but not yet locked.
                if time.time() - os.fstat(file.fileno()).st_mtime > LEFTOVER_AGE_SECONDS:
                    path.unlink()


def hold(session: Session, blobs: Blobs, sha256: str) -> None:
    """Make sure that the blob stays until this transaction, which will refer to it, has ended.

    Raises Conflict when it was deleted since it was put there.
    """
    dialects.exclusive(session, sha256)
    if not blobs.exists(sha256):
        raise Conflict(
            "The last other thing with the same content was deleted at this very moment.",
            "Do it once more.",
        )


def drop_unreferenced(store: Store, blobs: Blobs, hashes: Iterable[str]) -> None:
    """Remove those blobs that no row refers to (any more).

    Inside a write transaction, so that nobody who is about to refer to one loses it; see `hold`.
    """
    for sha256 in sorted(set(hashes)):
        with store.write() as session:
            dialects.exclusive(session, sha256)
            if not _referenced(session, sha256):
                blobs.delete(sha256)


def _referenced(session: Session, sha256: str) -> bool:
    columns = (Model.sha256, Model.derived_sha256, Dataset.sha256, Run.checkpoint_sha256)
    return any(
        session.scalar(select(column).where(column == sha256).limit(1)) is not None
        for column in columns
    )


def _key(sha256: str) -> str:
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is not a sha256 in hex")
    return f"{sha256[:2]}/{sha256}"


def _spread(root: Path, sha256: str) -> Path:
    return root / _key(sha256)


def _place(source: Path, target: Path) -> None:
    """Make `target` the file at `source` unless it exists; never half of it."""
    with _reporting_full():
        target.parent.mkdir(exist_ok=True)
        try:
            os.link(source, target)
        except FileExistsError:
            return
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            _copy_into_place(source, target)
        _sync_folder(target.parent)
        _sync_folder(target.parent.parent)


def _copy_into_place(source: Path, target: Path) -> None:
    """For a file system that has no hard links, or another one than that of `source`."""
    if target.exists():
        return
    partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        shutil.copyfile(source, partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(0o444)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _missing(sha256: str) -> NotFound:
    return NotFound(
        f"The blob store does not have the file {sha256[:12]}….",
        "Check PRUNESCOPE_BLOB_URL, or upload the file again.",
    )


@contextmanager
def _reporting_full() -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(
                "The disk that files are stored on is full.",
                "Free some space on it, then try again.",
            ) from error
        raise
