"""The walls round a stranger's zip archive: number, names, sizes and packing of its entries."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

from numpy.lib import format as npy

from app.domain.errors import InvalidFile, UnsafeFile

MAX_MEMBERS = 256
MAX_NAME = 200
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
MAX_DIRECTORY = 16 << 20
MAX_INFLATED = 64 << 30
# Deflate can't do better than about 1030:1. Sorted labels come close to that honestly, large sample
# arrays never do: the ratio counts from this size on.
MAX_RATIO = 200
RATIO_COUNTS_FROM = 256 << 20

SAVE_HINT = "Save it again with np.savez(path, x_train=…, y_train=…, x_test=…, y_test=…)."
UPLOAD_HINT = "Check that the file opens with np.load on your machine, then upload it again."


def refuse_other_formats(path: Path) -> None:
    """Raises InvalidFile or UnsafeFile with the fitting sentence unless `path` begins as a zip."""
    with open(path, "rb") as file:
        start = file.read(16)
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return
    if not start:
        raise InvalidFile("The file is empty.", SAVE_HINT)
    if start.startswith(npy.MAGIC_PREFIX):
        raise InvalidFile(
            "This is a single array (.npy); a data set needs samples and labels.", SAVE_HINT
        )
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise UnsafeFile(
            "This is a Python pickle, which can run code when it is opened.", SAVE_HINT
        )
    kind = "This is not an .npz archive."
    if start.startswith(b"\x89HDF"):
        kind = "This is an HDF5 file, not an .npz archive."
    elif start.startswith(b"\x1f\x8b"):
        kind = "This is a gzip file, not an .npz archive."
    elif start[8:9] == b"{":
        kind = "This looks like a safetensors file; data sets are read from .npz archives."
    raise InvalidFile(kind, SAVE_HINT)


def open_zip(file: BoundedReader) -> zipfile.ZipFile:
    """The archive's table of contents, nothing else. Raises InvalidFile."""
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, struct.error, UnicodeDecodeError, NotImplementedError) as error:
        raise InvalidFile(
            "The archive is damaged or cut short: its table of contents can't be read.",
            UPLOAD_HINT,
        ) from error


def list_names(path: Path) -> list[str]:
    """Names of all entries. Raises InvalidFile."""
    with BoundedReader(path) as file, open_zip(file) as archive:
        return archive.namelist()


def read_directory(
    file: BoundedReader,
) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo], tuple[str, ...]]:
    """The archive, its members by array name, and the names of the entries that are no arrays."""
    archive = open_zip(file)
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise InvalidFile(
            f"The archive has {len(infos):,} entries; a data set has at most {MAX_MEMBERS}.",
            "Save only the arrays that belong to the data set.",
        )
    if any(info.filename.split("/")[-1] == "data.pkl" for info in infos):
        raise UnsafeFile(
            "This is a file of torch.save, not a data set.",
            "Upload it as a model if it is one. " + SAVE_HINT,
        )
    members: dict[str, zipfile.ZipInfo] = {}
    others: list[str] = []
    for info in infos:
        if info.filename != info.orig_filename or len(info.filename) > MAX_NAME:
            raise InvalidFile("The archive has an entry with a malformed name.", SAVE_HINT)
        if not info.filename.endswith(".npy"):
            others.append(info.filename)
            continue
        _check_member(info)
        name = info.filename[: -len(".npy")]
        if name in members:
            raise InvalidFile(f"The archive has two arrays named {name!r}.", SAVE_HINT)
        members[name] = info
    inflated = sum(i.file_size for i in members.values() if i.compress_type)
    if inflated > MAX_INFLATED:
        raise InvalidFile(
            f"Unpacked, the arrays take {inflated:,} bytes; at most {MAX_INFLATED:,} are unpacked.",
            "Save the file with np.savez instead of np.savez_compressed.",
        )
    packed = sum(i.compress_size for i in members.values() if i.compress_type)
    if inflated > RATIO_COUNTS_FROM and inflated > MAX_RATIO * packed:
        raise _bomb("All arrays together", packed, inflated)
    if not members:
        raise _no_arrays(others)
    return archive, members, tuple(others)


def _no_arrays(entries: Sequence[str]) -> InvalidFile:
    names = [entry.lower().rpartition("/")[2] for entry in entries]
    if "archive_format" in names:
        return InvalidFile(
            "This is a network made with torch.export (.pt2), not a data set.",
            "Upload it as a model. " + SAVE_HINT,
        )
    return InvalidFile("The archive holds no arrays (no .npy entries).", SAVE_HINT)


def _check_member(info: zipfile.ZipInfo) -> None:
    name = info.filename
    if "/" in name or "\\" in name or not name.isprintable():
        raise InvalidFile(f"The archive has an entry with the name {name!a}.", SAVE_HINT)
    if info.flag_bits & 0x1:
        raise InvalidFile(f"{name} is encrypted.", "Save the arrays without a password.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InvalidFile(f"{name} is packed in a way that .npz files don't use.", SAVE_HINT)
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise InvalidFile(f"{name} has two different sizes in the archive.", UPLOAD_HINT)
    if info.file_size > RATIO_COUNTS_FROM and info.file_size > MAX_RATIO * info.compress_size:
        raise _bomb(name, info.compress_size, info.file_size)


def _bomb(what: str, packed: int, inflated: int) -> InvalidFile:
    return InvalidFile(
        f"{what} would grow from {packed:,} to {inflated:,} bytes when unpacked, which looks like "
        "a decompression bomb.",
        "Save the file with np.savez instead of np.savez_compressed.",
    )


class BoundedReader(io.BufferedReader):
    """A file that refuses to be read in one huge piece, as zipfile does with its directory."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "rb"))

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise InvalidFile("The archive's table of contents is far too long.", SAVE_HINT)
        return super().read(size)


class Window(io.RawIOBase):
    """The bytes of one stored member."""

    def __init__(self, file: BoundedReader, start: int, size: int) -> None:
        self._file, self._position, self._end = file, start, start + size

    def read(self, size: int = -1, /) -> bytes:
        left = self._end - self._position
        self._file.seek(self._position)
        data = self._file.read(left if size < 0 else min(size, left))
        self._position += len(data)
        return data
