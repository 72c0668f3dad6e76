"""`.safetensors`, read by its own rules: eight bytes of length, a JSON header, then the numbers.

The format is https://github.com/huggingface/safetensors (README, "Format"). Tensors lie one after
the other without holes, so nothing can hide between them and no two share a byte.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from app.domain.errors import InvalidFile
from worker.engine.formats.stored import Storage, StoredTensor, contiguous_strides, itemsize

# A network of a hundred layers has some 2,000 tensors of about 120 bytes each.
MAX_HEADER_BYTES = 4 << 20
MAX_TENSORS = 20_000
SAVE_HINT = (
    'Save the weights again: safetensors.torch.save_file(model.state_dict(), "model.safetensors").'
)
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}


def _damaged(what: str) -> InvalidFile:
    return InvalidFile(f"The safetensors file is damaged: {what}.", SAVE_HINT)


def looks_like_safetensors(start: bytes, file_bytes: int) -> bool:
    """Whether a file that begins with these bytes (nine or more) can be one."""
    return start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= file_bytes - 8


def scan_safetensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors by key, in the order of the file. Raises InvalidFile."""
    file_bytes = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise InvalidFile(
                f"The header of the safetensors file has {length:,} bytes; "
                f"at most {MAX_HEADER_BYTES:,} are read.",
                SAVE_HINT,
            )
        if length > file_bytes - 8:
            raise _damaged("it is cut short")
        raw = file.read(length)
    header = _parse(raw)
    metadata = header.pop("__metadata__", None)
    if metadata is not None and not isinstance(metadata, dict):
        raise _damaged("its metadata is no list of texts")
    if len(header) > MAX_TENSORS:
        raise InvalidFile(
            f"The file has {len(header):,} tensors; at most {MAX_TENSORS:,} are read.", SAVE_HINT
        )
    placed = sorted(
        ((*_checked(key, record), key) for key, record in header.items()), key=lambda item: item[:2]
    )
    end = 0
    for start, stop, _, _, key in placed:
        if start != end:
            raise _damaged(f"the bytes of {key[:80]!a} do not follow those of the tensor before it")
        end = stop
    if 8 + length + end != file_bytes:
        raise _damaged(
            f"its tensors take {end:,} bytes, the file holds {file_bytes - 8 - length:,}"
        )
    tensors = {}
    for start, stop, dtype, shape, key in placed:
        storage = Storage(key, 8 + length + start, stop - start)
        tensors[key] = StoredTensor(storage, dtype, shape, contiguous_strides(shape))
    return {key: tensors[key] for key in header}


def _parse(raw: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise _damaged("its header has a name twice")
        return made

    try:
        header = json.loads(raw, object_pairs_hook=once)
    except RecursionError as error:
        raise _damaged("its header is nested too deeply") from error
    except ValueError as error:
        raise _damaged("its header is not JSON") from error
    if not isinstance(header, dict):
        raise _damaged("its header is not a JSON object")
    return header


def _checked(key: str, record: Any) -> tuple[int, int, torch.dtype, tuple[int, ...]]:
    name = f"{key[:80]!a}"
    if not isinstance(record, dict) or set(record) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(f"{name} is not described as a tensor")
    code, shape, offsets = record["dtype"], record["shape"], record["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise InvalidFile(
            f"{name} is of the number type {str(code)[:20]!a}, which is not supported.",
            "Convert it to float32, float16 or bfloat16 before saving.",
        )
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(
            type(number) is int and 0 <= number < 1 << 62 for number in numbers
        ):
            raise _damaged(f"the shape of {name} is no list of sizes")
    if len(shape) > 16 or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(f"the shape of {name} is no list of sizes")
    dtype = _DTYPES[code]
    if math.prod(shape) * itemsize(dtype) != offsets[1] - offsets[0]:
        raise _damaged(
            f"{name} claims {math.prod(shape):,} numbers, its bytes hold "
            f"{(offsets[1] - offsets[0]) // itemsize(dtype):,}"
        )
    return offsets[0], offsets[1], dtype, tuple(shape)
