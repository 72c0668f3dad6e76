"""What an upload is unpacked into, once, so that it can be memory-mapped ever after.

A prepared file has the layout of a safetensors file. Its metadata hold, as JSON, what the unpacking
found out (format, options as applied, notes, class names). It is written in pieces and never in
memory as a whole; it is made behind walls, so that its header is checked like an upload's.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.domain.errors import InvalidFile, StorageFull
from worker.engine.formats.safetensors_arrays import DTYPES, SafetensorsArrays

KEY = "prunescope"
VERSION = 1
MAX_PREPARED_HEADER = 16 << 20
SPARE = 64 << 20
_CODES = {dtype: code for code, dtype in DTYPES.items() if code != "BF16"}
PREPARABLE = frozenset(_CODES)
_AGAIN = "Import the data set again."


@dataclass(frozen=True)
class Said:
    """What the unpacking of a format found out, for `DatasetInfo`. JSON types only."""

    format: str
    options: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    feature_names: list[str] = field(default_factory=list)
    layouts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """An array that will be written: type and shape are known before its content is."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class PreparedWriter:
    """Arrays grow by `append`, each in its own place of the file, in any order."""

    def __init__(self, path: Path, arrays: Mapping[str, Planned], said: Said) -> None:
        # Wide types first: every array then begins at a multiple of its own width.
        widest = sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize)
        self._arrays = {name: Planned(a.shape, little(a.dtype)) for name, a in widest}
        record: dict[str, Any] = {
            "__metadata__": {
                KEY: json.dumps({"version": VERSION, **asdict(said)}),
                **said.layouts,
            }
        }
        starts, at = {}, 0
        for name, array in self._arrays.items():
            starts[name] = at
            end = at + math.prod(array.shape) * array.dtype.itemsize
            record[name] = {
                "dtype": _CODES[array.dtype],
                "shape": list(array.shape),
                "data_offsets": [at, end],
            }
            at = end
        header = json.dumps(record).encode()
        header += b" " * (-len(header) % 8)
        if len(header) > MAX_PREPARED_HEADER:
            raise InvalidFile(
                "The data set has too many or too long names to keep.", "Shorten its class names."
            )
        free = shutil.disk_usage(path.parent).free
        if at + SPARE > free:
            raise StorageFull(
                f"Unpacking the data set takes {at:,} bytes, {free:,} are free.",
                "Make room on the disk, or bring the data set as a plain .npz (np.savez, not "
                "np.savez_compressed), which needs no unpacking.",
            )
        self._at = {name: 8 + len(header) + start for name, start in starts.items()}
        self._left = {n: math.prod(a.shape) * a.dtype.itemsize for n, a in self._arrays.items()}
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115 - closed by close()
        self._file.write(len(header).to_bytes(8, "little") + header)

    def append(self, name: str, rows: np.ndarray) -> None:
        """The next rows of array `name`, converted to its type."""
        raw = np.ascontiguousarray(rows, dtype=self._arrays[name].dtype)
        if raw.nbytes > self._left[name]:
            raise ValueError(f"{name} has more rows than it was planned with")
        self._file.seek(self._at[name])
        view = memoryview(raw.reshape(-1)).cast("B") if raw.size else memoryview(b"")
        while view:
            view = view[self._file.write(view) :]
        self._at[name] += raw.nbytes
        self._left[name] -= raw.nbytes

    def close(self) -> None:
        self._file.close()

    def finish(self) -> None:
        """Raises ValueError unless every array is complete."""
        if unfinished := [name for name, left in self._left.items() if left]:
            raise ValueError(f"not all rows were written: {unfinished}")


@contextlib.contextmanager
def writing(path: Path, arrays: Mapping[str, Planned], said: Said) -> Iterator[PreparedWriter]:
    """A prepared file that appears under its name only when it is complete. Raises StorageFull."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with full_disk_told():
            writer = PreparedWriter(part, arrays, said)
            try:
                yield writer
                writer.finish()
            finally:
                writer.close()
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def full_disk_told() -> Iterator[None]:
    """Turns the system's "no space left" into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull(
                "The disk is full; the data set could not be unpacked.",
                "Make room on the disk, then retry.",
            ) from error
        raise


class PreparedFile(SafetensorsArrays):
    """An opened prepared file; a Source. Raises InvalidFile if it isn't one or is damaged."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, max_header=MAX_PREPARED_HEADER)
        self.said = _said(self.metadata.get(KEY, ""))


def _said(text: str) -> Said:
    try:
        record = json.loads(text)
        if record.pop("version") != VERSION:
            raise ValueError("another version")
        said = Said(**record)
        listed = (said.notes, said.class_names, said.feature_names)
        fine = (
            isinstance(said.format, str)
            and isinstance(said.options, dict)
            and all(isinstance(v, list) and all(isinstance(s, str) for s in v) for v in listed)
        )
        if not fine:
            raise ValueError("wrong types")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidFile("The unpacked data set is damaged.", _AGAIN) from error
    return said


def little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The same type, least significant byte first."""
    return dtype.newbyteorder("<") if dtype.itemsize > 1 else dtype
