"""Headers of `.safetensors` that lie: each is refused with a sentence, in bounded time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from app.domain.errors import InvalidFile
from worker.engine.formats.models import open_model
from worker.engine.formats.safetensors_file import MAX_HEADER_BYTES, scan_safetensors
from worker.engine.formats.stored import load_stored


def packed(folder: Path, header: Any, numbers: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "a.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + numbers)
    return path


def record(shape: list[Any], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_the_same_as_the_library_reads(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.arange(5),
        "c": torch.ones(2, dtype=torch.bfloat16),
        "d": torch.tensor(True),
        "e": torch.empty(0, 2),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    found = load_stored(tmp_path / "a.safetensors", scan_safetensors(tmp_path / "a.safetensors"))
    theirs = load_file(tmp_path / "a.safetensors")
    assert set(found) == set(theirs)
    assert all(torch.equal(found[key], theirs[key]) for key in tensors)
    assert all(found[key].dtype == theirs[key].dtype for key in tensors)


@pytest.mark.parametrize(
    ("header", "numbers", "words"),
    [
        ({"a": record([2], 0, 8)}, 4, "its tensors take 8 bytes, the file holds 4"),
        ({"a": record([2], 0, 8)}, 12, "the file holds 12"),
        ({"a": record([3], 0, 8)}, 8, "claims 3 numbers"),
        ({"a": record([1 << 40, 0], 0, 8)}, 8, "claims 0 numbers"),
        ({"a": record([2], 0, 8), "b": record([2], 4, 12)}, 12, "do not follow"),
        ({"a": record([2], 0, 8), "b": record([2], 12, 20)}, 20, "do not follow"),
        ({"a": record([2], 8, 0)}, 8, "no list of sizes"),
        ({"a": record([-2], 0, 8)}, 8, "no list of sizes"),
        ({"a": record([True, 2], 0, 8)}, 8, "no list of sizes"),
        ({"a": record([1] * 40, 0, 4)}, 4, "no list of sizes"),
        ({"a": record([2.0], 0, 8)}, 8, "no list of sizes"),
        ({"a": record([8], 0, 8, "F8_E4M3")}, 8, "not supported"),
        ({"a": record([8], 0, 8, "pickle")}, 8, "not supported"),
        ({"a": 3}, 0, "not described as a tensor"),
        ({"a": {**record([2], 0, 8), "code": "x"}}, 8, "not described as a tensor"),
        ({"__metadata__": 3}, 0, "metadata"),
        (b'{"a": {}, "a": {}}', 0, "a name twice"),
        (b"{" + b"[" * 3000, 0, "not JSON|nested too deeply"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 0, "nested too deeply"),
        (b"{\xff}", 0, "not JSON"),
    ],
)
def test_a_header_that_lies(tmp_path: Path, header: Any, numbers: int, words: str) -> None:
    with pytest.raises(InvalidFile, match=words) as caught:
        scan_safetensors(packed(tmp_path, header, bytes(numbers)))
    assert caught.value.hint


def test_the_size_of_the_header_is_bounded(tmp_path: Path) -> None:
    path = packed(tmp_path, b"{" + b" " * MAX_HEADER_BYTES + b"}")
    start = time.perf_counter()
    with pytest.raises(InvalidFile, match="header"):
        open_model(path)
    assert time.perf_counter() - start < 2


def test_a_hundred_layers_pass(tmp_path: Path) -> None:
    name = "model.decoder.layers.{}.self_attention.some_projection_{}.weight"
    tensors = {name.format(at, part): torch.ones(1) for at in range(100) for part in range(24)}
    save_file(tensors, tmp_path / "a.safetensors")
    assert len(scan_safetensors(tmp_path / "a.safetensors")) == 2400


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes_are_read_or_refused(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    save_file({"a": torch.arange(12.0).reshape(3, 4), "b": torch.arange(5)}, tmp_path / "a")
    raw = bytearray((tmp_path / "a").read_bytes())
    for at, value in changes:
        raw[at % len(raw)] = value
    (tmp_path / "b").write_bytes(raw)
    try:
        found = load_stored(tmp_path / "b", scan_safetensors(tmp_path / "b"))
    except InvalidFile:
        return
    assert sum(tensor.numel() * tensor.element_size() for tensor in found.values()) <= len(raw)
