"""Every fault of an uploaded data set gets its own sentence, and nothing hostile gets further."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.domain.errors import InvalidFile, InvalidInput, UnsafeFile
from worker.engine.formats import zip_walls
from worker.engine.formats.datasets import inspect_dataset, open_dataset

X = np.zeros((6, 3), np.float32)
Y = np.array([0, 1, 2, 0, 1, 2])
IMAGES = np.zeros((6, 3, 4, 5), np.float32)


def _nan() -> np.ndarray:
    x = X.copy()
    x[[2, 4], 1] = np.nan
    return x


FAULTS: list[tuple[dict[str, object], str, str]] = [
    ({"data": X, "target": Y}, "no array x or x_train; it has 'data', 'target'", "Name the arrays"),
    ({"x_tune": X}, "y_tune is missing", "Add y_tune"),
    ({"x_tune": X, "Y_tune": Y}, "There is 'Y_tune': rename it to y_tune", "Add y_tune"),
    ({"x_tune": X, "y_tune": Y, "y_test": Y}, "y_test has no samples: x_test is missing", "x_test"),
    ({"x_train": X, "y_train": Y}, "neither x_tune nor x_test", "Add x_tune"),
    ({"x_train": X, "y_train": Y, "x_val": X}, "There is 'x_val': rename it to x_tune", "x_tune"),
    ({"x_test": X, "y_test": Y}, "neither x_tune nor x_train", "x_tune"),
    ({"x": X, "y": Y, "x_tune": X, "y_tune": Y}, "both x and x_tune", "Keep either"),
    ({"x_tune": X, "y_tune": Y[:5]}, "x_tune has 6 samples but y_tune has 5 labels", "same length"),
    ({"x_tune": X[:0], "y_tune": Y[:0]}, "x_tune is empty", "Leave the split out"),
    ({"x_tune": X[:, :0], "y_tune": Y}, "samples are empty", "Check"),
    ({"x_tune": X.astype(str), "y_tune": Y}, "x_tune holds text", "astype"),
    ({"x_tune": X.astype(complex), "y_tune": Y}, "complex numbers", "astype"),
    ({"x_tune": X, "y_tune": Y.astype(str)}, "y_tune holds text; labels are", "np.unique"),
    ({"x_tune": X, "y_tune": Y + 0.5}, "6 labels that are not whole", "Labels count"),
    ({"x_tune": X, "y_tune": np.eye(3)[Y]}, "one-hot", "y_tune.argmax(axis=1)"),
    ({"x_tune": X, "y_tune": Y.reshape(1, 6, 1)}, "6 samples but y_tune has 1", "same length"),
    ({"x_tune": X, "y_tune": Y - 1}, "2 labels that are negative; the first is -1 at sample 0",
     "Labels run from 0"),
    ({"x_tune": X, "y_tune": Y * 10**9}, "100,000 or more; the first is 1000000000 at",
     "np.unique"),
    ({"x_tune": _nan(), "y_tune": Y}, "2 of 6 samples with values that are not finite; "
     "the first is sample 2 (NaN)", "nan_to_num"),
    ({"x_tune": X + np.inf, "y_tune": Y}, "infinite values", "Remove"),
    ({"x_tune": X.astype("f8") + 1e300, "y_tune": Y}, "beyond float32", "Remove"),
    ({"x_tune": X, "y_tune": Y, "x_test": X[:, :2], "y_test": Y},
     "x_tune have the shape (3,), those of x_test (2,)", "one shape"),
    ({"x_tune": IMAGES, "y_tune": Y, "mean": [1.0, 2.0]},
     "mean has 2 values, but samples of the shape (3, 4, 5) have 3 channels", "one a channel"),
    ({"x_tune": IMAGES, "y_tune": Y, "std": np.ones(5)}, "std has 5 values", 'layout="NHWC"'),
    ({"x_tune": IMAGES, "y_tune": Y, "std": [1.0, 0.0, 1.0]}, "std has a value that is 0", "Use 1"),
    ({"x_tune": IMAGES, "y_tune": Y, "mean": np.nan}, "mean has values that are missing", "anew"),
    ({"x_tune": IMAGES, "y_tune": Y, "scale": np.ones(3)}, "scale has 3 values", "std = 1 / scale"),
    ({"x_tune": IMAGES, "y_tune": Y, "scale": 0.0}, "scale is 0", "1/255"),
    ({"x_tune": IMAGES, "y_tune": Y, "layout": "HWCN"}, "layout is 'HWCN', which isn't known",
     "NHWC"),
    ({"x_tune": IMAGES, "y_tune": Y, "layout": 3}, "layout is not a word", "NHWC"),
    ({"x_tune": X, "y_tune": Y, "layout": "NHWC"}, "needs samples of three axes", "Remove layout"),
    ({"x_tune": X, "x_tune.1": X, "y_tune": Y}, "x_tune beside x_tune.1", "x_tune.0"),
    ({"x_tune.0": X, "x_tune.2": X, "y_tune": Y}, "x_tune.1 is missing", "without a gap"),
    ({"x_tune.0": X, "x_tune.1": X[:4], "y_tune": Y}, "x_tune.1 has 4 samples", "same length"),
    ({"x": X[:3], "y": Y[:3]}, "3 samples are too few", "more samples"),
    ({"x": X[:1], "y": Y[:1]}, "1 sample is too few", "more samples"),
]  # fmt: skip


@pytest.mark.parametrize(("arrays", "sentence", "hint"), FAULTS, ids=[f[1][:40] for f in FAULTS])
def test_fault_gets_its_sentence(
    tmp_path: Path, arrays: dict[str, object], sentence: str, hint: str
) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(InvalidFile) as caught:
        inspect_dataset(tmp_path / "d.npz")
    assert sentence in caught.value.message
    assert hint in caught.value.hint


def test_objects_are_refused_unopened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return Path.touch, (tmp_path / "sprung",)

    trap = np.empty(6, object)
    trap[:] = [Trap() for _ in range(6)]
    np.savez(tmp_path / "d.npz", x_tune=trap, y_tune=Y)
    with pytest.raises(UnsafeFile, match="x_tune holds Python objects"):
        inspect_dataset(tmp_path / "d.npz")
    assert not (tmp_path / "sprung").exists()


OTHER_FORMATS = [
    (b"", InvalidFile, "empty"),
    (pickle.dumps({"x": 1}), UnsafeFile, "pickle"),
    (b"\x93NUMPY\x01\x00" + b"x" * 50, InvalidFile, "single array"),
    (b"\x89HDF\r\n\x1a\n" + b"0" * 50, InvalidFile, "HDF5"),
    (b"\x1f\x8b\x08" + b"0" * 50, InvalidFile, "gzip"),
    (b"\x10\0\0\0\0\0\0\0{}", InvalidFile, "safetensors"),
    (b"\0\1\2\3 nothing known", InvalidFile, "no data set"),
    (b"PK\x03\x04" + b"\0" * 200, InvalidFile, "cut short"),
]


@pytest.mark.parametrize(
    ("content", "kind", "word"), OTHER_FORMATS, ids=[f[2] for f in OTHER_FORMATS]
)
def test_other_formats_are_named(
    tmp_path: Path, content: bytes, kind: type[InvalidFile], word: str
) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(InvalidFile, match=word) as caught:
        open_dataset(tmp_path / "d.npz")
    assert type(caught.value) is kind


def _npy(array: np.ndarray, header: bytes | None = None) -> bytes:
    if header is not None:
        header = header.ljust(118 - 1) + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + array.tobytes()
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _zip(path: Path, entries: list[tuple[str, bytes]], packing: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


GOOD = [("x_tune.npy", _npy(X)), ("y_tune.npy", _npy(Y))]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ([*GOOD, ("../evil.npy", _npy(X))], "with the name"),
        ([*GOOD, GOOD[0]], "two arrays named 'x_tune'"),
        ([("a/data.pkl", b"x"), *GOOD], "torch.save"),
        ([("readme.txt", b"x")], "no arrays"),
        ([("net/archive_format", b"pt2"), ("net/data/weights/w_0", b"x")], "Upload it as a model"),
        ([("x_tune.npy", b"nothing"), GOOD[1]], "no readable .npy header"),
        ([("x_tune.npy", _npy(X)[:-4]), GOOD[1]], r"takes 72 bytes, but holds 68"),
        ([("x_tune.npy", _npy(X) + b"more"), GOOD[1]], r"takes 72 bytes, but holds 76"),
        ([GOOD[0], ("y_tune.npy", _npy(
            Y, b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1024), }"
        ))], "takes 4,503,599,627,370,496 bytes"),
        ([GOOD[0], ("y_tune.npy", _npy(
            Y, b"{'descr': '<f4', 'fortran_order': False, 'shape': (-6,), }"
        ))], "impossible shape"),
        ([GOOD[0], ("y_tune.npy", _npy(
            Y, b"{'descr': [[[['O']]]], 'fortran_order': False, 'shape': (6,), }"
        ))], "no readable .npy header"),
        ([(f"a{i}.npy", b"") for i in range(300)], "300 entries"),
        ([("n" * 250 + ".npy", b""), *GOOD], "malformed name"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)  # fmt: skip
@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_hostile_archives(
    tmp_path: Path, entries: list[tuple[str, bytes]], word: str, packing: int
) -> None:
    with pytest.raises(InvalidFile, match=word):
        inspect_dataset(_zip(tmp_path / "d.npz", entries, packing))


def test_deep_and_long_headers_are_refused_cheaply(tmp_path: Path) -> None:
    deep = b"(" * 9000
    long = b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1, " * 40_000 + b")}"
    for header in (deep, long):
        content = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header
        path = _zip(tmp_path / "d.npz", [("x_tune.npy", content), GOOD[1]])
        with pytest.raises(InvalidFile, match="no readable"):
            inspect_dataset(path)
    lying = b"\x93NUMPY\x02\x00" + struct.pack("<I", 0xFFFFFFF0) + b"{}"
    with pytest.raises(InvalidFile, match="no readable"):
        inspect_dataset(_zip(tmp_path / "d.npz", [("x_tune.npy", lying), GOOD[1]]))


def test_other_packings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="packed in a way"):
        inspect_dataset(_zip(tmp_path / "d.npz", GOOD, zipfile.ZIP_LZMA))


def test_bomb_is_refused_before_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_walls, "RATIO_COUNTS_FROM", 1 << 20)
    bomb = np.zeros((1, 3 << 20), np.uint8)
    np.savez_compressed(tmp_path / "d.npz", x_tune=bomb, y_tune=np.zeros(1, int))
    with pytest.raises(InvalidFile, match="decompression bomb"):
        inspect_dataset(tmp_path / "d.npz", folder=tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_member_that_lies_about_its_size_stops_there(tmp_path: Path) -> None:
    """The table of contents promises 24 bytes of labels, the packed stream holds far more."""
    path = tmp_path / "d.npz"
    big = np.zeros(1 << 20, np.uint8)
    small = _npy(X)
    _zip(path, [("x_tune.npy", small + big.tobytes()), GOOD[1]], zipfile.ZIP_DEFLATED)
    raw = bytearray(path.read_bytes())
    true_size = struct.pack("<I", len(small) + len(big))
    assert raw.count(true_size) == 2
    path.write_bytes(bytes(raw).replace(true_size, struct.pack("<I", len(small))))
    with pytest.raises(InvalidFile, match=r"x_tune is (damaged|not as long)"):
        inspect_dataset(path, folder=tmp_path / "made")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["d.npz"]


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_is_found(tmp_path: Path, packing: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (6, 300), dtype=np.uint8)
    entries = [("x_tune.npy", _npy(noise)), GOOD[1]]
    path = _zip(tmp_path / "d.npz", entries, packing)
    raw = bytearray(path.read_bytes())
    raw[900] ^= 0x40
    path.write_bytes(raw)
    with pytest.raises(InvalidFile, match="x_tune is damaged"):
        inspect_dataset(path)


def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = _zip(tmp_path / "d.npz", GOOD).read_bytes()
    for length in range(0, len(whole), 37):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(InvalidFile):
            inspect_dataset(tmp_path / "cut.npz")


def test_random_damage_never_raises_anything_else(tmp_path: Path) -> None:
    whole = _zip(tmp_path / "d.npz", GOOD, zipfile.ZIP_DEFLATED).read_bytes()
    rng = np.random.default_rng(7)
    refused = 0
    for _ in range(400):
        raw = bytearray(whole)
        for position in rng.integers(0, len(raw), 3):
            raw[position] = rng.integers(0, 256)
        (tmp_path / "cut.npz").write_bytes(raw)
        try:
            inspect_dataset(tmp_path / "cut.npz")
        except InvalidFile:
            refused += 1
    assert refused > 200


def test_a_giant_table_of_contents_is_not_read(tmp_path: Path) -> None:
    path = _zip(tmp_path / "d.npz", GOOD)
    raw = bytearray(path.read_bytes())
    padding = b"\0" * (zip_walls.MAX_DIRECTORY + 1)
    size = struct.unpack("<L", raw[-10:-6])[0]
    raw[-10:-6] = struct.pack("<L", size + len(padding))
    raw[-22 - size : -22 - size] = padding
    path.write_bytes(raw)
    with pytest.raises(InvalidFile, match="far too long"):
        inspect_dataset(path)


def test_unknown_tasks_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_tune=X, y_tune=Y)
    with pytest.raises(InvalidInput, match="'clustering' is not known") as caught:
        inspect_dataset(tmp_path / "d.npz", "clustering")
    assert "regression" in caught.value.fields["task"]
