"""Reading data sets in `.safetensors` that strangers uploaded: own checks of the header, then maps.

The format is eight bytes of length, a JSON header that says where each tensor lies, and the bytes.
Everything the header claims is compared with the file before anything is mapped, by the rules of
the format: offsets in order, without gaps or overlaps, up to the last byte of the file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from app.domain.errors import InvalidFile
from worker.engine.formats.sources import MAX_WORD, BFloat16, Header

MAX_HEADER = 1 << 20
MAX_TENSORS = 256
MAX_NAME = 200
MAX_AXES = 16

SAVE_HINT = (
    "Save it again with safetensors.numpy.save_file({'x_train': …, 'y_train': …, 'x_test': …, "
    "'y_test': …}, path)."
)
UPLOAD_HINT = "Check that safetensors.safe_open reads it on your machine, then upload it again."
DTYPES = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}


class SafetensorsArrays:
    """An opened `.safetensors` file; a Source. `metadata` are the header's own words.

    Raises InvalidFile, one sentence for each way in which a header can be wrong.
    """

    others: tuple[str, ...] = ()

    def __init__(self, path: Path, *, max_header: int = MAX_HEADER) -> None:
        self.path = Path(path)
        record, self._start, size = _read_header(self.path, max_header)
        self.metadata = _metadata(record.pop("__metadata__", {}))
        self._places = _places(record, size)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors in the order of the file, then words kept in the metadata."""
        words = [n for n in self.metadata if n.split(".")[0] == "layout" and n not in self._places]
        return (*self._places, *words)

    def header(self, name: str) -> Header:
        if name not in self._places:
            return Header((), np.dtype("U1"), "text")
        kind, shape, _ = self._places[name]
        if kind == "BF16":
            return Header(shape, BFloat16.dtype, "bfloat16")
        return Header(shape, DTYPES[kind], str(DTYPES[kind]))

    def array(self, name: str) -> Any:
        kind, shape, offset = self._places[name]
        if 0 in shape:
            return np.empty(shape, self.header(name).dtype)
        mapped = np.memmap(self.path, DTYPES[kind], "r", self._start + offset, shape or (1,))
        array = mapped.view(np.ndarray).reshape(shape)
        return BFloat16(array) if kind == "BF16" else array

    def word(self, name: str) -> str | None:
        """Text is kept in the metadata, or as a uint8 tensor of its letters."""
        if name not in self._places:
            return self.metadata.get(name)
        kind, shape, _ = self._places[name]
        if kind != "U8" or len(shape) != 1 or not 0 < shape[0] <= MAX_WORD:
            return None
        return self.array(name).tobytes().decode("latin1")

    def verify(self, name: str) -> None:
        """The format has no checksums."""

    def close(self) -> None:
        """Nothing is held open; arrays handed out stay readable."""


def _read_header(path: Path, max_header: int) -> tuple[dict[str, Any], int, int]:
    """The header as JSON, where the data begins and how many bytes it has. Raises InvalidFile."""
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or length > size - 8:
            raise InvalidFile(
                "The safetensors file is cut short: its header is longer than the file.",
                "The upload or the copy was probably interrupted. Upload the whole file again.",
            )
        if length > max_header:
            raise InvalidFile(
                f"The header of the safetensors file has {length:,} bytes; at most "
                f"{max_header:,} are read.",
                "Save only the tensors that belong to the data set.",
            )
        raw = file.read(length)
    try:
        record = json.loads(raw.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_constant)
    except InvalidFile:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidFile(
            "The header of the safetensors file is no readable JSON.", SAVE_HINT
        ) from error
    if not isinstance(record, dict):
        raise InvalidFile("The header of the safetensors file is no list of tensors.", SAVE_HINT)
    return record, 8 + length, size - 8 - length


def _places(record: Mapping[str, Any], size: int) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """Type, shape and offset of each tensor, in the order of their bytes. Raises InvalidFile."""
    if len(record) > MAX_TENSORS:
        raise InvalidFile(
            f"The file has {len(record):,} tensors; a data set has at most {MAX_TENSORS}.",
            "Save only the tensors that belong to the data set; a network's weights are uploaded "
            "as a model.",
        )
    found = sorted(_entry(name, entry) for name, entry in record.items())
    at = 0
    for begin, end, name, _, _ in found:
        if begin != at:
            what = "overlaps the one before it" if begin < at else "leaves a gap before it"
            raise InvalidFile(f"The tensor {name!r} {what}.", SAVE_HINT)
        at = end
    if at > size:
        raise InvalidFile(
            f"The safetensors file is cut short: its tensors take {at:,} bytes, {size:,} are "
            "there.",
            "The upload or the copy was probably interrupted. Upload the whole file again.",
        )
    if at != size:
        raise InvalidFile(
            f"The safetensors file has {size - at:,} bytes that belong to no tensor.", SAVE_HINT
        )
    return {name: (kind, shape, begin) for begin, _, name, kind, shape in found}


def _entry(name: str, entry: Any) -> tuple[int, int, str, str, tuple[int, ...]]:
    """Begin, end, name, type and shape of one tensor. Raises InvalidFile."""
    if len(name) > MAX_NAME or not name.isprintable():
        raise InvalidFile("The file has a tensor with a malformed name.", SAVE_HINT)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InvalidFile(f"The header's entry {name!r} is malformed.", SAVE_HINT)
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise InvalidFile(
            f"The tensor {name!r} is of the type {str(kind)[:20]!r}, which can't be read.",
            "Convert it first, for example to float32.",
        )
    if not _whole(shape) or len(shape) > MAX_AXES or not _whole(offsets) or len(offsets) != 2:
        raise InvalidFile(f"The header's entry {name!r} is malformed.", SAVE_HINT)
    begin, end = offsets
    wanted = math.prod(shape) * DTYPES[kind].itemsize
    if end - begin != wanted:
        raise InvalidFile(
            f"The tensor {name!r} claims the shape {tuple(shape)} of {kind}, which takes "
            f"{wanted:,} bytes, but has {end - begin:,}.",
            UPLOAD_HINT,
        )
    return begin, end, name, kind, tuple(shape)


def _whole(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 1 << 62 for v in value)


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise InvalidFile("The metadata of the safetensors file is not made of words.", SAVE_HINT)
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise InvalidFile("The header of the safetensors file has a name twice.", SAVE_HINT)
    return result


def _constant(word: str) -> Any:
    raise ValueError(word)
