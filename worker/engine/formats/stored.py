"""Tensors where they lie in a file, before a byte of them is read, and the way into memory.

Every reader of weights (`.pt2`, `.safetensors`, `torch.save`) says with these values where a tensor
lies; the checks against lies about size and sharing are here, once.
"""

from __future__ import annotations

import math
import mmap
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from app.domain.errors import InvalidFile

MAX_RANK = 16
DTYPES = {
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
    torch.bool,
}
_CHUNK = 8 << 20
# The alignment torch gives its own memory, and its archives. At others, kernels may round
# differently.
_ALIGNMENT = 64
_CONTIGUOUS_HINT = "Call .contiguous() (or .clone()) on it and save it again."


@dataclass(frozen=True)
class Storage:
    """A run of bytes in a file. `crc`: its checksum, where the file has one."""

    name: str
    start: int
    size: int
    crc: int | None = None


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a storage; `strides` and `offset` count elements."""

    storage: Storage
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    parameter: bool = False
    requires_grad: bool = False

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


def itemsize(dtype: torch.dtype) -> int:
    return dtype.itemsize


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements of a tensor laid out row by row."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def span(
    key: str, shape: Sequence[int], strides: Sequence[int], offset: int, hint: str = ""
) -> tuple[int, int]:
    """First and one past the last element in memory.

    Raises InvalidFile where one place in memory stands for several entries: that is how a file of
    a kilobyte claims a tensor of terabytes.
    """
    if 0 in shape:
        return offset, offset
    reach = 0
    for stride, size in sorted((t, n) for n, t in zip(shape, strides, strict=True) if n > 1):
        if stride <= reach:
            raise InvalidFile(
                f"The tensor {key} uses the same memory for several of its entries.",
                hint or _CONTIGUOUS_HINT,
            )
        reach += stride * (size - 1)
    return offset, offset + reach + 1


def check_stored(tensors: Mapping[str, StoredTensor]) -> None:
    """Every tensor is plain, of a known number type, inside its storage, and shares memory only
    with its equals.

    So all tensors together, equals counted once, are never larger than the file. Raises
    InvalidFile.
    """
    groups: dict[Storage, list[tuple[str, StoredTensor]]] = {}
    for key, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            name = str(tensor.dtype).removeprefix("torch.")
            raise InvalidFile(
                f"{key} is of the number type {name}, which is not supported.",
                "Convert it to float32, float16 or bfloat16 before saving.",
            )
        if len(tensor.shape) > MAX_RANK or len(tensor.strides) != len(tensor.shape):
            raise InvalidFile(f"{key} has more axes than can be.", _CONTIGUOUS_HINT)
        if min((*tensor.shape, *tensor.strides, tensor.offset), default=0) < 0:
            raise InvalidFile(f"{key} has a negative size.", "Save the weights again.")
        groups.setdefault(tensor.storage, []).append((key, tensor))
    for storage, group in groups.items():
        places: dict[tuple[int, int], str] = {}
        layouts: dict[tuple[object, ...], tuple[int, int]] = {}
        for key, tensor in group:
            width = itemsize(tensor.dtype)
            start, end = span(key, tensor.shape, tensor.strides, tensor.offset)
            if end * width > storage.size:
                raise InvalidFile(
                    f"{key} claims {end:,} numbers, its bytes hold {storage.size // width:,}.",
                    "The file is damaged. Save the weights again.",
                )
            layout = (tensor.dtype, tensor.shape, tensor.strides, tensor.offset)
            if start < end and layout not in layouts:
                layouts[layout] = (start * width, end * width)
                places.setdefault((start * width, end * width), key)
        ordered = sorted(layouts.values())
        if any(later[0] < earlier[1] for earlier, later in pairwise(ordered)):
            raise InvalidFile(
                f"The tensors {', '.join(key for key, _ in group[:4])} overlap in memory without "
                "being the same tensor.",
                "Give each its own memory with .clone() and save them again.",
            )


class FileBytes:
    """The bytes of one open file as tensors, mapped where they lie well, else copied."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._map: mmap.mmap | None = None

    def tensor(self, start: int, size: int) -> Tensor:
        """`size` bytes as a uint8 tensor that may be changed; the file never is.

        Raises InvalidFile if the file ends before.
        """
        if size >= _CHUNK and start % _ALIGNMENT == 0:
            if self._map is None:
                # Private: a page that is written to becomes this process's own.
                self._map = mmap.mmap(
                    self._file.fileno(),
                    0,
                    flags=mmap.MAP_PRIVATE,
                    prot=mmap.PROT_READ | mmap.PROT_WRITE,
                )
            if start + size > len(self._map):
                raise _cut_short()
            return torch.frombuffer(self._map, dtype=torch.uint8, count=size, offset=start)
        flat = torch.empty(size, dtype=torch.uint8)
        view = memoryview(flat.numpy())
        self._file.seek(start)
        at = 0
        while at < size:
            part = view[at : at + _CHUNK]
            got = self._file.readinto(part)  # type: ignore[attr-defined]
            if not got:
                raise _cut_short()
            at += got
        return flat


def checksum(flat: Tensor) -> int:
    """CRC-32 of a uint8 tensor."""
    crc = 0
    view = memoryview(flat.numpy())
    for at in range(0, len(view), _CHUNK):
        crc = zlib.crc32(view[at : at + _CHUNK], crc)
    return crc


def _cut_short() -> InvalidFile:
    return InvalidFile(
        "The file is cut short.",
        "The upload or the copy was probably interrupted. Upload the whole file again.",
    )


def storage_bytes(source: FileBytes, storage: Storage) -> Tensor:
    """The storage's bytes, with their checksum compared. Raises InvalidFile."""
    flat = source.tensor(storage.start, storage.size)
    if storage.crc is not None and checksum(flat) != storage.crc:
        raise InvalidFile(
            f"The file is damaged: the checksum of {storage.name} is wrong.",
            "Upload it again, or save it again.",
        )
    return flat


def materialise(flat: Tensor, tensor: StoredTensor, *, alone: bool) -> Tensor:
    """A stored tensor from its storage's bytes; a copy unless it has the storage for itself."""
    width = itemsize(tensor.dtype)
    typed = flat[: flat.numel() // width * width].view(tensor.dtype)
    if tensor.dtype is torch.bool and bool((flat > 1).any()):
        raise InvalidFile(
            f"{tensor.storage.name} holds values that are neither true nor false.",
            "The file is damaged. Save it again.",
        )
    result = typed.as_strided(tensor.shape, tensor.strides, tensor.offset)
    return result if alone else result.clone(memory_format=torch.preserve_format)


def load_stored(path: Path, tensors: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """All tensors, checked, in order; those of one place in the file are one object.

    Raises InvalidFile.
    """
    check_stored(tensors)
    made: dict[StoredTensor, Tensor] = {}
    with open(path, "rb", buffering=0) as file:
        source = FileBytes(file)
        for storage, group in _by_storage(tensors.values()):
            flat = storage_bytes(source, storage)
            for tensor in group:
                whole = tensor.numel * itemsize(tensor.dtype) == storage.size
                value = materialise(flat, tensor, alone=whole)
                if tensor.parameter:
                    trainable = value.dtype.is_floating_point or value.dtype.is_complex
                    value = nn.Parameter(value, requires_grad=tensor.requires_grad and trainable)
                made[tensor] = value
    return {key: made[tensor] for key, tensor in tensors.items()}


def stream_stored(
    path: Path, tensors: Mapping[str, StoredTensor]
) -> Iterator[tuple[tuple[str, ...], StoredTensor, Tensor]]:
    """One distinct tensor after another with all its keys; none is kept. Raises InvalidFile."""
    check_stored(tensors)
    keys: dict[StoredTensor, list[str]] = {}
    for key, tensor in tensors.items():
        keys.setdefault(tensor, []).append(key)
    with open(path, "rb", buffering=0) as file:
        source = FileBytes(file)
        for storage, group in _by_storage(tensors.values()):
            flat = storage_bytes(source, storage)
            for tensor in group:
                yield tuple(keys[tensor]), tensor, materialise(flat, tensor, alone=True)


def _by_storage(tensors: Iterable[StoredTensor]) -> list[tuple[Storage, list[StoredTensor]]]:
    groups: dict[Storage, list[StoredTensor]] = {}
    for tensor in dict.fromkeys(tensors):
        groups.setdefault(tensor.storage, []).append(tensor)
    return list(groups.items())
