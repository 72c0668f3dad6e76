"""Safetensors files, weights or data, whose header lies about sizes and places."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.attacks import kit

READ: dict[str, Callable[[Path], kit.Outcome]] = {
    "weights": kit.read_model,
    "data": kit.read_dataset,
}


def sound() -> dict[str, Any]:
    """A header that is a state_dict as well as a data set; 240 + 160 bytes."""
    return {
        "x": {"dtype": "F32", "shape": [20, 3], "data_offsets": [0, 240]},
        "y": {"dtype": "I64", "shape": [20], "data_offsets": [240, 400]},
    }


def written(folder: Path, header: Any, data: bytes | None = None, length: int = -1) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(raw) if length < 0 else length
    data = bytes(240) + b"".join((n % 2).to_bytes(8, "little") for n in range(20))  \
        if data is None else data  # fmt: skip
    path = folder / "evil.safetensors"
    path.write_bytes(size.to_bytes(8, "little") + raw + data)
    return path


LIES = {
    "a terabyte": {"shape": [1 << 20, 1 << 20]},
    "a product of 0 in 64 bits": {"shape": [1 << 32, 1 << 32]},
    "a product of 60 in 64 bits": {"shape": [(1 << 62) + 15, 4]},
    "sizes beyond 64 bits": {"shape": [1 << 70, 0]},
    "no entries, huge axes": {"shape": [0, 1 << 60]},
    "negative sizes": {"shape": [-20, -3]},
    "fractions": {"shape": [20.0, 3]},
    "truth": {"shape": [True, 60]},
    "words": {"shape": ["20", "3"]},
    "a hundred axes": {"shape": [1] * 100 + [60]},
    "a thousand huge axes": {"shape": [(1 << 62) - 1] * 1000},
    "no shape": {"shape": None},
    "the other's bytes": {"data_offsets": [160, 400]},
    "bytes beyond the end": {"data_offsets": [0, 1 << 40]},
    "bytes before the start": {"data_offsets": [-240, 0]},
    "bytes backwards": {"data_offsets": [240, 0]},
    "bytes that overflow": {"data_offsets": [(1 << 64) - 240, 1 << 64]},
    "three offsets": {"data_offsets": [0, 120, 240]},
    "a hole": {"data_offsets": [4, 244]},
    "another type": {"dtype": "F64"},
    "a type of its own": {"dtype": "PICKLE"},
    "half bytes": {"dtype": "F4"},
    "no type": {"dtype": None},
    "a type that is a list": {"dtype": ["F32"]},
    "another member": {"pickle": "cos\nsystem\n"},
}


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("lie", LIES)
def test_a_tensor_that_lies(tmp_path: Path, canary: kit.Canary, kind: str, lie: str) -> None:
    header = sound()
    header["x"].update(LIES[lie])
    kit.refused(READ[kind](written(tmp_path, header)), "", canary, memory_bytes=50 * kit.MIB)


def test_without_lies_it_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, sound())
    assert kit.read_model(path).value["details"]["kind"] == "weights"
    assert sum(kit.read_dataset(path).value["splits"].values()) == 20


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("length", [0, 1, 2, 400, 1 << 20, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
def test_a_header_of_another_length(
    tmp_path: Path, canary: kit.Canary, kind: str, length: int
) -> None:
    path = written(tmp_path, sound(), length=length)
    kit.refused(READ[kind](path), "", canary, memory_bytes=50 * kit.MIB)


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("shared", [2, 1000])
def test_tensors_that_share_their_bytes(
    tmp_path: Path, canary: kit.Canary, kind: str, shared: int
) -> None:
    header = sound() | {f"x{n}": sound()["x"] for n in range(shared)}
    kit.refused(READ[kind](written(tmp_path, header)), "", canary, memory_bytes=50 * kit.MIB)


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("tail", [b"x", b"PK\x05\x06" + bytes(18), b"\x80\x02cos\nsystem\n."])
def test_something_hidden_behind(
    tmp_path: Path, canary: kit.Canary, kind: str, tail: bytes
) -> None:
    """Bytes that belong to no tensor: a second file for whoever reads from the end."""
    path = written(tmp_path, sound())
    path.write_bytes(path.read_bytes() + tail)
    kit.refused(READ[kind](path), "", canary)
