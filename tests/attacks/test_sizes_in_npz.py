"""Arrays of `.npz` files that lie about shape, type and length."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import kit, zips
from tests.attacks.doors import npz


def npy(header: str, data: bytes, version: bytes = b"\x01\x00") -> bytes:
    raw = header.encode("latin1") + b"\n"
    length = len(raw).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + length + raw + data


def header(shape: str, descr: str = "'<f4'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"


SHAPES = [
    "(1099511627776, 1099511627776)",
    "(4294967296, 4294967296, 3)",
    "(4611686018427387905, 4)",
    "(9223372036854775807,)",
    "(18446744073709551617, 3)",
    "(-20, 3)",
    "(-20, -3)",
    "(0, 1099511627776)",
    "(1099511627776, 0)",
    "(20, 3.0)",
    "(True, 60)",
    "('20', 3)",
    "(20, (3,))",
    "20",
    "()",
    "(" + "1," * 64 + ")",
    "(" + "1," * 33 + ")",
    "(21, 3)",
    "(19, 3)",
]
TYPES = [
    "'<f8'",
    "'<f16'",
    "'<c16'",
    "'<U9999999'",
    "'|S2147483647'",
    "'|V4'",
    "'<M8[ns]'",
    "'<f3'",
    "'>f4'",
    "'f4, f4'",
    "[('a', '<f4', (1000000, 1000000))]",
    "'<f4:'",
    "[]",
    "None",
    "'|b1'",
    "{'names': ['a'], 'formats': ['<f4'], 'offsets': [1000000000], 'itemsize': 2000000000}",
    "{'names': ['a', 'b'], 'formats': ['<f4', '<f4'], 'offsets': [0, 0], 'itemsize': 4}",
]


def read(folder: Path, evil: bytes, name: str = "x_train.npy") -> kit.Outcome:
    entries = npz() | {name: evil}
    path = folder / "evil.npz"
    path.write_bytes(zips.archive(zips.members(entries)))
    return kit.read_dataset(path)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ["False", "True"])
def test_a_shape_that_lies(tmp_path: Path, canary: kit.Canary, shape: str, order: str) -> None:
    outcome = read(tmp_path, npy(header(shape, order=order), bytes(240)))
    kit.refused(outcome, "", canary, memory_bytes=50 * kit.MIB)


@pytest.mark.parametrize("shape", SHAPES)
def test_labels_that_lie(tmp_path: Path, canary: kit.Canary, shape: str) -> None:
    outcome = read(tmp_path, npy(header(shape, "'<i8'"), bytes(160)), "y_train.npy")
    kit.refused(outcome, "", canary, memory_bytes=50 * kit.MIB)


@pytest.mark.parametrize("descr", TYPES)
def test_types_that_lie(tmp_path: Path, canary: kit.Canary, descr: str) -> None:
    outcome = read(tmp_path, npy(header("(20, 3)", descr), bytes(240)))
    kit.harmless(outcome, canary, memory_bytes=50 * kit.MIB)
    if descr not in ("'>f4'",):
        kit.refused(outcome)


@pytest.mark.parametrize(
    "version", [b"\x00\x00", b"\x01\x01", b"\x02\x00", b"\x03\x00", b"\xff\xff"]
)
@pytest.mark.parametrize("claimed", [0, 1, 1 << 20, (1 << 32) - 1])
def test_headers_of_any_length(
    tmp_path: Path, canary: kit.Canary, version: bytes, claimed: int
) -> None:
    raw = b"\x93NUMPY" + version + claimed.to_bytes(4, "little") + header("(20, 3)").encode()
    kit.refused(read(tmp_path, raw), "", canary, memory_bytes=50 * kit.MIB)


def test_a_header_of_megabytes(tmp_path: Path, canary: kit.Canary) -> None:
    """numpy itself asks for more patience with long headers: they are parsed as Python."""
    evil = npy(header("(20, 3)") + " " * (84 << 20), bytes(240), b"\x02\x00")
    kit.refused(read(tmp_path, evil), "no readable .npy header", canary, memory_bytes=50 * kit.MIB)
