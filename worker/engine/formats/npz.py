"""Reading `.npz` archives that strangers uploaded: walls first, then memory-mapped arrays.

An `.npz` is a zip of `.npy` members. Nothing is ever unpickled, and no array is ever held in memory
as a whole: a stored member is mapped where it lies in the archive, a deflated one is inflated once
into a cache file and mapped there. Everything that a member claims (its size, its shape, its type)
is compared with what is really there before it is used.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import math
import os
import shutil
import struct
import tempfile
import time
import uuid
import warnings
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from app.domain.errors import InvalidFile, StorageFull, UnsafeFile
from worker.engine.formats.zip_walls import (
    SAVE_HINT,
    UPLOAD_HINT,
    BoundedReader,
    Window,
    read_directory,
    refuse_other_formats,
)

MAX_HEADER = 10_000
CHUNK = 1 << 20
BLOCK = 16 << 20
STALE_PART_SECONDS = 3600

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")


@dataclass(frozen=True)
class Header:
    """What a `.npy` member says about its array; `data_offset` counts from the member's start."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    data_offset: int

    @property
    def data_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class NpzFile:
    """An opened `.npz`. Use it as a context manager, or call `close`.

    `cache_dir` keeps inflated members for the next opening of the same file; without it they live
    in a private temporary directory that disappears with this object.

    Raises InvalidFile (a sentence per fault), UnsafeFile for pickles, StorageFull.
    """

    def __init__(self, path: Path, cache_dir: Path | None = None) -> None:
        self.path = Path(path)
        refuse_other_formats(self.path)
        self._file = BoundedReader(self.path)
        try:
            self._archive, self._members, self.others = read_directory(self._file)
        except BaseException:
            self._file.close()
            raise
        status = os.stat(self.path)
        self._identity = f"{self.path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
        self._size = status.st_size
        self._cache_dir = cache_dir
        self._private = Path()
        self._cleanup: weakref.finalize[Any, Any] | None = None
        self._headers: dict[str, Header] = {}
        self._arrays: dict[str, np.ndarray] = {}
        self._digests: dict[str, str] = {}

    def __enter__(self) -> NpzFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the archive; arrays handed out stay readable as long as they are held."""
        self._file.close()
        self._arrays.clear()
        if self._cleanup is not None:
            self._cleanup()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays, without `.npy`, in the order of the archive."""
        return tuple(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def header(self, name: str) -> Header:
        """Shape and type of one array, checked against the size of its member."""
        if name not in self._headers:
            info = self._members[name]
            with _reading(name), self._open(info) as stream:
                prefix = stream.read(MAX_HEADER + 64)
            header = _parse_header(name, prefix)
            expected = header.data_offset + header.data_bytes
            if info.file_size != expected:
                raise InvalidFile(
                    f"{name} claims the shape {header.shape} of {header.dtype}, which takes "
                    f"{header.data_bytes:,} bytes, but holds "
                    f"{max(0, info.file_size - header.data_offset):,}.",
                    UPLOAD_HINT,
                )
            self._headers[name] = header
        return self._headers[name]

    def array(self, name: str) -> np.ndarray:
        """One array, read-only, memory-mapped, in C order, in the type it was stored in."""
        if name not in self._arrays:
            header = self.header(name)
            info = self._members[name]
            if header.data_bytes == 0:
                array = np.empty(header.shape, header.dtype)
            elif info.compress_type == zipfile.ZIP_STORED:
                array = _map(self.path, self._data_start(info) + header.data_offset, header)
            else:
                array = _map(self._inflated(name), header.data_offset, header)
            if header.fortran_order and array.ndim > 1:
                array = self._in_c_order(name, array)
            self._arrays[name] = array
        return self._arrays[name]

    def verify(self, name: str) -> None:
        """Compares a stored member with its checksum. (A deflated one is checked by inflating.)"""
        info = self._members[name]
        if info.compress_type != zipfile.ZIP_STORED:
            self.array(name)
            return
        checksum = 0
        with _reading(name), self._open(info) as stream:
            while chunk := stream.read(CHUNK):
                checksum = zlib.crc32(chunk, checksum)
        if checksum != info.CRC:
            raise InvalidFile(f"{name} is damaged: its checksum is wrong.", UPLOAD_HINT)

    def digest(self, name: str) -> str:
        """sha256 of shape, type and C-order content of one array; kept beside the cache."""
        if name not in self._digests:
            kept = self._cache_path(name, "sha256") if self._cache_dir else None
            if kept is not None and kept.is_file():
                self._digests[name] = kept.read_text("ascii")
            else:
                self._digests[name] = digest_of(self.array(name))
                if kept is not None:
                    with _atomic(kept) as out:
                        out.write(self._digests[name].encode("ascii"))
        return self._digests[name]

    def _open(self, info: zipfile.ZipInfo) -> Any:
        if info.compress_type == zipfile.ZIP_STORED:
            return Window(self._file, self._data_start(info), info.file_size)
        self._data_start(info)
        return self._archive.open(info)

    def _data_start(self, info: zipfile.ZipInfo) -> int:
        """Where the member's bytes begin; its local header must agree with the directory."""
        if not 0 <= info.header_offset < self._size:
            raise InvalidFile(f"{info.filename} is not where the archive says.", UPLOAD_HINT)
        self._file.seek(info.header_offset)
        raw = self._file.read(_LOCAL_HEADER.size)
        if len(raw) < _LOCAL_HEADER.size or raw[:4] != b"PK\x03\x04":
            raise InvalidFile(f"{info.filename} is not where the archive says.", UPLOAD_HINT)
        fields = _LOCAL_HEADER.unpack(raw)
        method, name_length, extra_length = fields[3], fields[9], fields[10]
        start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        if method != info.compress_type or start + info.compress_size > self._size:
            raise InvalidFile(
                f"{info.filename} disagrees with the archive's table of contents.", UPLOAD_HINT
            )
        return start

    def _inflated(self, name: str) -> Path:
        info = self._members[name]
        target = self._cache_path(name, "npy")
        if target.is_file() and target.stat().st_size == info.file_size:
            return target
        self._require_space(info.file_size)
        written = 0
        with _atomic(target) as out, _reading(name), self._open(info) as stream:
            while chunk := stream.read(CHUNK):
                written += len(chunk)
                if written > info.file_size:
                    break
                out.write(chunk)
            if written != info.file_size:
                raise InvalidFile(f"{name} is not as long as the archive says.", UPLOAD_HINT)
        return target

    def _in_c_order(self, name: str, array: np.ndarray) -> np.ndarray:
        """A sample of a column-major array is scattered over the whole file: turn it once."""
        header = self._headers[name]
        target = self._cache_path(name, "c.bin")
        if not (target.is_file() and target.stat().st_size == header.data_bytes):
            self._require_space(header.data_bytes)
            with _atomic(target) as out:
                for block in blocks(array):
                    out.write(np.ascontiguousarray(block).data)
        return _map(target, 0, Header(header.shape, header.dtype, False, 0))

    def _cache_path(self, name: str, suffix: str) -> Path:
        if self._cache_dir is None and self._cleanup is None:
            self._private = Path(tempfile.mkdtemp(prefix="prunescope-npz-"))
            self._cleanup = weakref.finalize(self, shutil.rmtree, self._private, True)
        directory = self._cache_dir or self._private
        if self._cache_dir is not None:
            directory.mkdir(parents=True, exist_ok=True)
        info = self._members[name]
        key = f"{self._identity}|{name}|{info.CRC}|{info.file_size}|{info.header_offset}"
        return directory / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.{suffix}"

    def _require_space(self, needed: int) -> None:
        directory = self._cache_dir or self._private
        free = shutil.disk_usage(directory).free
        if needed > free:
            raise StorageFull(
                f"Unpacking the data set takes {needed:,} bytes, {free:,} are free.",
                "Make room on the disk, or save the file with np.savez instead of "
                "np.savez_compressed: then it needs no unpacking.",
            )


def blocks(array: np.ndarray, block_bytes: int = BLOCK) -> Iterator[np.ndarray]:
    """Runs of whole rows (first axis) of about `block_bytes` each; a 0-d array comes as one row."""
    if array.ndim == 0:
        yield array.reshape(1)
        return
    row = max(1, math.prod(array.shape[1:]) * array.dtype.itemsize)
    step = max(1, block_bytes // row)
    for start in range(0, len(array), step):
        yield array[start : start + step]


def digest_of(array: np.ndarray) -> str:
    """sha256 of an array's type, shape and content in C order."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    for block in blocks(array):
        if block.size:
            digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()


def _parse_header(name: str, prefix: bytes) -> Header:
    """The member's `.npy` header out of its first bytes, which are all that it may use."""
    stream = io.BytesIO(prefix)
    # The numpy parser meets whatever a stranger wrote: deep nesting, odd escapes, absurd types.
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError("unknown version")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape, fortran_order, dtype = read(stream, max_header_size=MAX_HEADER)
    except Exception as error:
        raise InvalidFile(f"{name} has no readable .npy header.", SAVE_HINT) from error
    if dtype.hasobject:
        raise UnsafeFile(
            f"{name} holds Python objects, which are stored as a pickle and can run code.",
            "Make it a plain numeric array, for example with np.stack or .astype(np.float32); "
            "np.load(path, allow_pickle=False) shows whether that worked.",
        )
    if any(size < 0 for size in shape):
        raise InvalidFile(f"{name} has the impossible shape {shape}.", SAVE_HINT)
    return Header(tuple(int(size) for size in shape), dtype, fortran_order, stream.tell())


def _map(path: Path, offset: int, header: Header) -> np.ndarray:
    order = "F" if header.fortran_order else "C"
    mapped = np.memmap(path, header.dtype, "r", offset, header.shape or (1,), order)
    return mapped.view(np.ndarray).reshape(header.shape, order=order)


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError) as error:
        raise InvalidFile(f"{name} is damaged and can't be unpacked.", UPLOAD_HINT) from error


@contextlib.contextmanager
def _atomic(target: Path) -> Iterator[Any]:
    """A file that appears under its name only when it is complete."""
    _remove_stale_parts(target.parent)
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
    try:
        with open(part, "xb") as out:
            yield out
        os.replace(part, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                "The disk is full; the data set could not be unpacked.",
                "Make room on the disk, then retry.",
            ) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def _remove_stale_parts(directory: Path) -> None:
    """What a killed process left half-written would otherwise stay for ever."""
    limit = time.time() - STALE_PART_SECONDS
    for part in directory.glob("*.part"):
        with contextlib.suppress(FileNotFoundError):
            if part.stat().st_mtime < limit:
                part.unlink()
