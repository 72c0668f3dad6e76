"""Data sets far larger than memory: a child that may not grow reads them through."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# The limit counts private writable memory; what is mapped from a file is not held by the process.
CHILD = """
import json, resource, sys
from pathlib import Path
import torch
from worker.engine.formats.datasets import inspect_dataset, open_dataset

def status(name):
    line = next(l for l in open("/proc/self/status") if l.startswith(name + ":"))
    return int(line.split()[1]) << 10

path, task, options, growth, loops = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
torch.set_num_threads(1)
limit = status("VmData") + growth
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
before = peak = status("RssAnon")
info = inspect_dataset(Path(path), task, options, folder=Path(path).parent / "made")
made = Path(path).parent / "made" / "prepared"
seen = 0
with open_dataset(Path(path), task, options, prepared=made if info.prepared else None) as data:
    for _ in range(loops):
        for name in data.names:
            for inputs, labels in data.split(name).batches(64):
                seen += len(labels)
                peak = max(peak, status("RssAnon"))
try:
    bytearray(growth + (64 << 20))
    raise SystemExit("the limit doesn't hold")
except MemoryError:
    pass
print(json.dumps({"seen": seen, "grown": peak - before, "splits": info.splits}))
"""


def run(path: Path, task: str, options: Any, growth: int, loops: int = 1) -> dict[str, Any]:
    arguments = [str(path), task, json.dumps(options), json.dumps(growth), json.dumps(loops)]
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout)


def sparse_npz(path: Path, shape: tuple[int, ...], labels: np.ndarray) -> Path:
    """A stored `.npz` of zeros that takes next to nothing on disk."""

    def npy(array_shape: tuple[int, ...], kind: str) -> bytes:
        text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {array_shape}, }}"
        text = text.ljust(117) + "\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()

    entries, directory = [], b""
    size = int(np.prod(shape)) * 4
    for name, head, tail, zeros in (
        ("x.npy", npy(shape, "<f4"), b"", size),
        ("y.npy", npy(labels.shape, "<i8"), labels.astype("<i8").tobytes(), 0),
    ):
        crc = zlib.crc32(head)
        for start in range(0, zeros, 1 << 24):
            crc = zlib.crc32(bytes(min(1 << 24, zeros - start)), crc)
        entries.append((name, head, tail, zeros, zlib.crc32(tail, crc)))
    with open(path, "wb") as file:
        for name, head, tail, zeros, crc in entries:
            length = len(head) + len(tail) + zeros
            fields = (20, 0, 0, 0, 0, crc, length, length, len(name), 0)
            directory += struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, *fields, 0, 0, 0, 0,
                                     file.tell()) + name.encode()  # fmt: skip
            file.write(struct.pack("<4s5H3L2H", b"PK\x03\x04", *fields) + name.encode() + head)
            file.seek(zeros, os.SEEK_CUR)
            file.write(tail)
        start = file.tell()
        file.write(directory)
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, len(directory), start, 0))
    return path


def sparse_safetensors(path: Path, tensors: dict[str, tuple[str, list[int], int]]) -> Path:
    header: dict[str, Any] = {}
    at = 0
    for name, (kind, shape, width) in tensors.items():
        end = at + int(np.prod(shape)) * width
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)
    return path


def test_an_npz_larger_than_its_process(tmp_path: Path) -> None:
    shape = (8000, 3, 128, 128)
    path = sparse_npz(tmp_path / "d.npz", shape, np.arange(8000) % 10)
    assert path.stat().st_size > 1.5e9
    assert path.stat().st_blocks * 512 < 4 << 20
    result = run(path, "classification", None, 150 << 20)
    assert result["seen"] == 8000
    assert result["splits"] == {"train": 4800, "tune": 1600, "test": 1600}


def test_a_text_larger_than_its_process(tmp_path: Path) -> None:
    """Labels of a language model are as large as the text: they may not be held either."""
    path = sparse_safetensors(tmp_path / "d.safetensors", {"x": ("U16", [300_000_000], 2)})
    result = run(path, "language-modelling", {"block": 4096}, 150 << 20)
    assert result["seen"] == 300_000_000 // 4096


def test_maps_of_labels_larger_than_their_process(tmp_path: Path) -> None:
    """An own split takes rows from all over; they come when they are asked for."""
    path = sparse_safetensors(
        tmp_path / "d.safetensors",
        {"x": ("U8", [2000, 1, 256, 256], 1), "y": ("I64", [2000, 256, 256], 8)},
    )
    assert run(path, "classification", None, 200 << 20)["seen"] == 2000


@pytest.mark.benchmark
def test_four_gigabytes_in_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = 4_300_000_000 // (3 * 224 * 224)
    path = sparse_safetensors(
        tmp_path / "d.safetensors",
        {"x_tune": ("U8", [count, 3, 224, 224], 1), "y_tune": ("I64", [count], 8)},
    )
    assert path.stat().st_size > 4 << 30
    began = time.perf_counter()
    result = run(path, "classification", None, 512 << 20)
    with capsys.disabled():
        print(
            f"\n{path.stat().st_size / 1e9:.1f} GB read through in "
            f"{time.perf_counter() - began:.1f} s, {result['grown'] / 1e6:.0f} MB of memory more"
        )
    assert result["seen"] == count
