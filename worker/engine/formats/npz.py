"""Reading `.npz` archives that strangers uploaded: walls first, then memory-mapped arrays.

An `.npz` is a zip of `.npy` members. Nothing is ever unpickled, and no array is ever held in memory
as a whole: a stored member is mapped where it lies in the archive, a deflated one comes in runs of
rows. Everything that a member claims (its size, its shape, its type)
is compared with what is really there before it is used.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from app.domain.errors import InvalidFile, UnsafeFile
from worker.engine.formats.sources import MAX_WORD, Header, blocks
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
RUN = 4 << 20

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")


@dataclass(frozen=True)
class NpyHeader:
    """What a `.npy` member says about its array; `data_offset` counts from the member's start."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    data_offset: int

    @property
    def data_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class NpzFile:
    """An opened `.npz`; a Source. Use it as a context manager, or call `close`.

    Raises InvalidFile (a sentence per fault), UnsafeFile for pickles.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        refuse_other_formats(self.path)
        self._file = BoundedReader(self.path)
        try:
            self._archive, self._members, self.others = read_directory(self._file)
        except BaseException:
            self._file.close()
            raise
        self._size = os.stat(self.path).st_size
        self._headers: dict[str, NpyHeader] = {}

    def __enter__(self) -> NpzFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the archive; arrays handed out stay readable as long as they are held."""
        self._file.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays, without `.npy`, in the order of the archive."""
        return tuple(self._members)

    def header(self, name: str) -> Header:
        """Shape and type of one array, checked against the size of its member."""
        npy_header = self._npy_header(name)
        dtype = npy_header.dtype
        return Header(npy_header.shape, dtype, str(dtype.newbyteorder("=")))

    def is_mappable(self, name: str) -> bool:
        """Whether the array lies in the file as it is: not packed, row after row."""
        header = self._npy_header(name)
        flat = len(header.shape) < 2 or not header.fortran_order
        return flat and self._members[name].compress_type == zipfile.ZIP_STORED

    def array(self, name: str) -> np.ndarray:
        """A mappable array, read-only, memory-mapped, in the type it was stored in."""
        if not self.is_mappable(name):
            raise ValueError(f"{name} has to be unpacked first")
        return self._mapped(name)

    def rows(self, name: str, folder: Path) -> Iterator[np.ndarray]:
        """Any array in runs of whole rows. `folder` takes a column-major one while it is turned.

        A packed array is compared with its checksum on the way.
        """
        header, info = self._npy_header(name), self._members[name]
        scattered = header.fortran_order and len(header.shape) > 1
        if header.data_bytes == 0:
            yield np.empty(header.shape, header.dtype)
        elif info.compress_type == zipfile.ZIP_STORED:
            yield from blocks(self._mapped(name))
        elif not scattered:
            yield from self._inflated_rows(name)
        else:
            turning = folder / "turning.part"
            try:
                with open(turning, "xb") as out:
                    for chunk in self._chunks(name, CHUNK):
                        out.write(chunk)
                yield from blocks(_map(turning, header.data_offset, header))
            finally:
                turning.unlink(missing_ok=True)

    def word(self, name: str) -> str | None:
        header = self._npy_header(name)
        if header.dtype.kind not in "US" or math.prod(header.shape) != 1:
            return None
        if header.dtype.itemsize > MAX_WORD * 4:
            raise InvalidFile(f"{name} is far too long.", "It is one short word.")
        raw = b"".join(self._chunks(name, CHUNK))[header.data_offset :]
        letters = raw[: header.dtype.itemsize]
        if header.dtype.kind == "S":
            return letters.rstrip(b"\0").decode("latin1")
        try:
            # numpy takes any four bytes for a character, and Python's own strings then fail.
            order = "be" if header.dtype.str.startswith(">") else "le"
            return letters.decode(f"utf-32-{order}").rstrip("\0")
        except UnicodeDecodeError:
            return None

    def verify(self, name: str) -> None:
        """Compares an array with its checksum. Raises InvalidFile."""
        info = self._members[name]
        checksum = 0
        for chunk in self._chunks(name, CHUNK):
            checksum = zlib.crc32(chunk, checksum)
        if checksum != info.CRC:
            raise InvalidFile(f"{name} is damaged: its checksum is wrong.", UPLOAD_HINT)

    def _npy_header(self, name: str) -> NpyHeader:
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

    def _mapped(self, name: str) -> np.ndarray:
        header = self._npy_header(name)
        if header.data_bytes == 0:
            return np.empty(header.shape, header.dtype)
        start = self._data_start(self._members[name])
        return _map(self.path, start + header.data_offset, header)

    def _chunks(self, name: str, size: int) -> Iterator[bytes]:
        """The member's bytes, header included, exactly as many as the archive says."""
        info, left = self._members[name], self._members[name].file_size
        with _reading(name), self._open(info) as stream:
            while left:
                chunk = stream.read(min(size, left))
                if not chunk:
                    raise InvalidFile(f"{name} is not as long as the archive says.", UPLOAD_HINT)
                left -= len(chunk)
                yield chunk

    def _inflated_rows(self, name: str) -> Iterator[np.ndarray]:
        header = self._npy_header(name)
        shape = header.shape or (1,)
        row = max(1, math.prod(shape[1:]) * header.dtype.itemsize)
        wanted = max(1, RUN // row) * row
        buffer, skip = bytearray(), header.data_offset
        for chunk in self._chunks(name, CHUNK):
            buffer += chunk[skip:]
            skip = max(0, skip - len(chunk))
            if len(buffer) >= wanted:
                whole = len(buffer) - len(buffer) % row
                yield np.frombuffer(bytes(buffer[:whole]), header.dtype).reshape(-1, *shape[1:])
                del buffer[:whole]
        if buffer:
            yield np.frombuffer(bytes(buffer), header.dtype).reshape(-1, *shape[1:])

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


def _parse_header(name: str, prefix: bytes) -> NpyHeader:
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
    return NpyHeader(tuple(int(size) for size in shape), dtype, fortran_order, stream.tell())


def _map(path: Path, offset: int, header: NpyHeader) -> np.ndarray:
    order = "F" if header.fortran_order else "C"
    mapped = np.memmap(path, header.dtype, "r", offset, header.shape or (1,), order)
    return mapped.view(np.ndarray).reshape(header.shape, order=order)


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError) as error:
        raise InvalidFile(f"{name} is damaged and can't be unpacked.", UPLOAD_HINT) from error
