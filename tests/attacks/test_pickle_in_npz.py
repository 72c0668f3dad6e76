"""Object arrays: numpy stores them as pickles."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.attacks import kit, pickles

LOADS = "import numpy as np\nnp.load(path, allow_pickle=True)[name]"
ROLES = ["x_tune", "y_tune", "x_train", "scale", "mean", "layout", "something else"]


def object_array(pickle: bytes, dtype: str = "'|O'") -> bytes:
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': (1,)}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + pickle


def archive(folder: Path, name: str, evil: bytes) -> Path:
    rng = np.random.default_rng(0)
    sound = {
        "x_tune": rng.random((8, 3), np.float32),
        "y_tune": np.arange(8) % 2,
        "x_train": rng.random((8, 3), np.float32),
        "y_train": np.arange(8) % 2,
    }
    with zipfile.ZipFile(folder / "evil.npz", "w") as made:
        for each, array in sound.items():
            if each != name:
                raw = io.BytesIO()
                np.save(raw, array)
                made.writestr(f"{each}.npy", raw.getvalue())
        made.writestr(f"{name}.npy", evil)
    return folder / "evil.npz"


@pytest.mark.parametrize("role", ROLES)
def test_as_any_array(tmp_path: Path, canary: kit.Canary, role: str) -> None:
    evil = object_array(pickles.whole(pickles.shell(canary.command)))
    path = archive(tmp_path, role, evil)
    outcome = kit.read_dataset(path)
    kit.harmless(outcome, canary)
    if role != "something else":  # an array that plays no part is never opened
        assert "Python objects" in kit.refused(outcome, "", canary, code="unsafe-file")
    kit.dangerous(kit.elsewhere(LOADS, path=str(path), name=role), canary)


@pytest.mark.parametrize("protocol", pickles.dumped("x"))
def test_in_every_protocol(tmp_path: Path, canary: kit.Canary, protocol: int) -> None:
    path = archive(tmp_path, "x_tune", object_array(pickles.dumped(canary.command)[protocol]))
    kit.refused(kit.read_dataset(path), "Python objects", canary, code="unsafe-file")
    kit.dangerous(kit.elsewhere(LOADS, path=str(path), name="x_tune"), canary)


@pytest.mark.parametrize(
    "dtype",
    [
        "[('a', '<f4'), ('b', '|O')]",
        "[('a', [('b', '|O')])]",
        "('|O', (2,))",
        "[('a', '|O', (2, 2))]",
    ],
)
def test_within_records(tmp_path: Path, canary: kit.Canary, dtype: str) -> None:
    evil = object_array(pickles.whole(pickles.shell(canary.command)), dtype)
    kit.refused(kit.read_dataset(archive(tmp_path, "x_tune", evil)), "", canary)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': __import__('os').system('COMMAND'), 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), **__import__('os').environ}",
        "[c for c in ().__class__.__base__.__subclasses__()]",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "(" * 4000 + "}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10**10**10,)}",
        "{'descr': [" + "('a', '<f4')," * 700 + "], 'fortran_order': False, 'shape': (1,)}",
    ],
)
def test_headers_that_are_programs(tmp_path: Path, canary: kit.Canary, header: str) -> None:
    """The header of an array is a Python expression; only literals may be taken from it."""
    raw = header.replace("COMMAND", canary.command).encode() + b"\n"
    evil = b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw + bytes(64)
    kit.refused(kit.read_dataset(archive(tmp_path, "x_tune", evil)), "", canary)
