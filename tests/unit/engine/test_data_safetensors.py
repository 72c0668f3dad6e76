"""Data sets in `.safetensors`: equal to what was saved, and every lie of a header is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from app.domain.errors import InvalidFile
from worker.engine.formats.datasets import inspect_dataset, open_dataset
from worker.engine.formats.safetensors_arrays import MAX_HEADER, SafetensorsArrays

Y = torch.arange(8) % 2


def _raw(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool, torch.float16,
     torch.bfloat16, torch.float32, torch.float64],
)  # fmt: skip
def test_every_type_arrives_as_its_values(tmp_path: Path, dtype: torch.dtype) -> None:
    x = (torch.arange(40).reshape(8, 5) * 0.75 - 3).to(dtype)
    save_file({"x_tune": x, "y_tune": Y}, tmp_path / "d.safetensors")
    info = inspect_dataset(tmp_path / "d.safetensors", folder=tmp_path)
    assert info.format == "safetensors"
    assert info.dtype == str(dtype).removeprefix("torch.")
    assert not info.prepared
    with open_dataset(tmp_path / "d.safetensors") as data:
        (got,), labels = data.split("tune").batch(2, 7)
        (picked,), _ = data.split("tune").gather(np.array([7, 0, 7]))
    assert torch.equal(got, x[2:7].to(torch.float32))
    assert torch.equal(picked, x[[7, 0, 7]].to(torch.float32))
    assert labels.tolist() == Y[2:7].tolist()


@pytest.mark.parametrize("as_tensor", [False, True])
def test_scale_mean_std_and_layout(tmp_path: Path, as_tensor: bool) -> None:
    x = torch.randint(0, 256, (8, 4, 5, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4], dtype=torch.bfloat16)
    tensors = {"x_tune": x, "y_tune": Y, "scale": torch.tensor(1 / 255), "mean": mean, "std": std}
    if as_tensor:
        tensors["layout"] = torch.tensor(list(b"NHWC"), dtype=torch.uint8)
    metadata = {"made": "by hand"} if as_tensor else {"layout": "NHWC"}
    save_file(tensors, tmp_path / "d.safetensors", metadata)
    with open_dataset(tmp_path / "d.safetensors") as data:
        assert data.info.input_shape == [3, 4, 5]
        (got,), _ = data.split("tune").batch(0, 8)
    expected = (x.permute(0, 3, 1, 2).double() / 255 - mean[:, None, None].double()) / std[
        :, None, None
    ].double()
    np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=2e-6, atol=2e-6)


def test_the_rules_of_splits_are_those_of_npz(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32), np.arange(100) % 4
    np.savez(tmp_path / "d.npz", x=x, y=y)
    save_file({"x": torch.tensor(x), "y": torch.tensor(y)}, tmp_path / "d.safetensors")
    with open_dataset(tmp_path / "d.npz") as a, open_dataset(tmp_path / "d.safetensors") as b:
        assert a.info.splits == b.info.splits
        for name in a.names:
            assert a.split(name).fingerprint == b.split(name).fingerprint


def _tensor(begin: int, end: int, dtype: Any = "F32", shape: Any = None) -> dict[str, Any]:
    shape = [(end - begin) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


LIES: list[tuple[Any, bytes, str]] = [
    (b"[]", b"", "does|list of tensors"),
    (b"{ ", b"", "no readable JSON"),
    (b"{\xff}", b"", "no readable JSON"),
    (b"{" + b'"a":{' * 5000, b"", "no readable JSON"),
    (b'{"x": NaN}', b"", "no readable JSON"),
    (b'{"x": ' + b"9" * 9000 + b"}", b"", "no readable JSON"),
    (b'{"x":{"dtype":"F32","dtype":"F32"}}', b"", "a name twice"),
    (b'{"x":1,"x":2}', b"", "a name twice"),
    ({"x": _tensor(0, 8), "y": _tensor(4, 12)}, b"\0" * 12, "overlaps"),
    ({"x": _tensor(0, 4), "y": _tensor(8, 12)}, b"\0" * 12, "leaves a gap"),
    ({"x": _tensor(4, 12)}, b"\0" * 12, "leaves a gap"),
    ({"x": _tensor(0, 4000)}, b"\0" * 12, "cut short"),
    ({"x": _tensor(0, 8)}, b"\0" * 12, "belong to no tensor"),
    ({"x": _tensor(0, 8, shape=[3])}, b"\0" * 8, "claims the shape"),
    ({"x": _tensor(0, 0, shape=[1 << 40, 1 << 40])}, b"", "claims the shape"),
    ({"x": _tensor(0, 8, shape=[-1, -2])}, b"\0" * 8, "malformed"),
    ({"x": _tensor(0, 8, shape=[2.0])}, b"\0" * 8, "malformed"),
    ({"x": _tensor(0, 4, shape=[True])}, b"\0" * 4, "malformed"),
    ({"x": _tensor(0, 8, shape=[1] * 70)}, b"\0" * 8, "malformed"),
    ({"x": _tensor(0, 8, dtype="F8_E4M3")}, b"\0" * 8, "type 'F8_E4M3'"),
    ({"x": _tensor(0, 8, dtype=["F32"])}, b"\0" * 8, "can't be read"),
    ({"x": 5}, b"", "malformed"),
    ({"x": {**_tensor(0, 8), "more": 1}}, b"\0" * 8, "malformed"),
    ({"x" * 300: _tensor(0, 8)}, b"\0" * 8, "malformed name"),
    ({"x\n": _tensor(0, 8)}, b"\0" * 8, "malformed name"),
    ({f"x{i}": _tensor(0, 0) for i in range(300)}, b"", "300 tensors"),
    ({"__metadata__": {"a": 1}, "x": _tensor(0, 8)}, b"\0" * 8, "not made of words"),
    ({"__metadata__": []}, b"", "not made of words"),
    (b"{" + b" " * MAX_HEADER + b"}", b"", "at most 1,048,576 are read"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "data", "word"), LIES, ids=[str(i) for i in range(len(LIES))])
def test_lies_of_a_header(tmp_path: Path, header: Any, data: bytes, word: str) -> None:
    with pytest.raises(InvalidFile, match=word):
        inspect_dataset(_raw(tmp_path / "d.safetensors", header, data))


def test_a_length_beyond_the_file(tmp_path: Path) -> None:
    for size in (0, 1, 2, 50):
        path = tmp_path / "d.safetensors"
        path.write_bytes((1 << 40).to_bytes(8, "little") + b"{" * size)
        with pytest.raises(InvalidFile):
            inspect_dataset(path)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_mutations_are_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever happens to the bytes, nothing but InvalidFile comes out."""
    path = tmp_path / "d.safetensors"
    save_file({"x_tune": torch.ones(8, 2), "y_tune": Y}, path, {"layout": "NCHW"})
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))
    path.write_bytes(raw[:cut])
    try:
        inspect_dataset(path)
    except InvalidFile as error:
        event(error.message[:40])


def test_arrays_are_mapped(tmp_path: Path) -> None:
    save_file({"x_tune": torch.ones(8, 2), "y_tune": Y}, tmp_path / "d.safetensors")
    array = SafetensorsArrays(tmp_path / "d.safetensors").array("x_tune")
    assert not array.flags.writeable
    while isinstance(array.base, np.ndarray):
        array = array.base
    assert isinstance(array, np.memmap)
