"""Data sets that are fine: what comes out equals what numpy says went in."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from app.domain.errors import NotFound
from worker.engine.formats.datasets import inspect_dataset, open_dataset
from worker.engine.formats.npz import NpzFile


def _labels(n: int, classes: int = 3) -> np.ndarray:
    return np.arange(n) % classes


def _save(path: Path, *, compressed: bool = False, **arrays: object) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_transform_and_layout_equal_the_formula(tmp_path: Path, compressed: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (30, 5, 4, 3), dtype=np.uint8)
    y = _labels(30)
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.4])
    path = _save(
        tmp_path / "d.npz", compressed=compressed, x_tune=x, y_tune=y,
        scale=1 / 255, mean=mean, std=std, layout="NHWC",
    )  # fmt: skip
    with open_dataset(path) as data:
        (got,), labels = data.split("tune").batch(7, 19)
        assert data.info.input_shape == [3, 5, 4]
        assert data.info.splits == {"tune": 30}
        assert data.info.classes == 3
        assert data.info.counts == {"tune": [10, 10, 10]}
    chw = x[7:19].transpose(0, 3, 1, 2)
    expected = (chw / 255 - mean[:, None, None]) / std[:, None, None]
    assert got.dtype is torch.float32
    assert got.is_contiguous()
    np.testing.assert_allclose(got.numpy(), expected, atol=2e-6)
    assert labels.tolist() == y[7:19].tolist()


def test_every_way_of_reading_gives_the_same_samples(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(50, 6))
    path = _save(tmp_path / "d.npz", x=x, y=_labels(50))
    with open_dataset(path) as data:
        split = data.split("train")
        whole, labels = split.batch(0, 1000)
        assert len(labels) == len(split) == 30
        pieces = list(split.batches(7))
        assert [len(p[1]) for p in pieces] == [7, 7, 7, 7, 2]
        assert torch.equal(torch.cat([p[0][0] for p in pieces]), whole[0])
        order = np.array([5, 0, 29, 5])
        picked, picked_labels = split.gather(order)
        assert torch.equal(picked[0], whole[0][order])
        assert torch.equal(picked_labels, labels[order])


def test_own_split_is_stratified_seeded_and_disjoint(tmp_path: Path) -> None:
    n = 500
    y = np.repeat([0, 1, 2], [250, 200, 50])
    path = _save(tmp_path / "d.npz", x=np.arange(n, dtype=np.float32)[:, None], y=y)

    def rows(seed: int) -> dict[str, list[int]]:
        with open_dataset(path, seed=seed) as data:
            return {
                name: data.split(name).batch(0, n)[0][0].flatten().int().tolist()
                for name in data.names
            }

    first, again, other = rows(0), rows(0), rows(1)
    assert first == again
    assert first["test"] != other["test"]
    assert sorted(first["train"] + first["tune"] + first["test"]) == list(range(n))
    for name, share in {"train": 0.6, "tune": 0.2, "test": 0.2}.items():
        counts = np.bincount(y[first[name]], minlength=3)
        np.testing.assert_array_equal(counts, np.array([250, 200, 50]) * share)


def test_tune_is_cut_from_train_only(tmp_path: Path) -> None:
    x = np.arange(100, dtype=np.float32)[:, None]
    path = _save(
        tmp_path / "d.npz", x_train=x, y_train=_labels(100, 4), x_test=x + 500, y_test=_labels(100)
    )
    with open_dataset(path) as data:
        got = {n: data.split(n).batch(0, 999)[0][0].flatten().tolist() for n in data.names}
        assert data.info.splits == {"train": 80, "tune": 20, "test": 100}
        assert data.info.counts["tune"] == [5, 5, 5, 5]
    assert sorted(got["train"] + got["tune"]) == list(range(100))
    assert min(got["test"]) == 500


def test_the_cut_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine.formats.splitting.MAX_TUNE_CUT", 12)
    x = np.zeros((100, 2), np.float32)
    path = _save(tmp_path / "d.npz", x_train=x, y_train=_labels(100), x_test=x, y_test=_labels(100))
    assert inspect_dataset(path).splits == {"train": 88, "tune": 12, "test": 100}


def test_rare_classes_stay_in_train(tmp_path: Path) -> None:
    y = np.array([0] * 40 + [1] * 9 + [2])
    path = _save(tmp_path / "d.npz", x=np.zeros((50, 2)), y=y)
    info = inspect_dataset(path)
    assert info.counts["train"][2] == 1
    assert info.splits["tune"] == info.splits["test"] == 10


def test_several_inputs_and_their_own_options(tmp_path: Path) -> None:
    tokens = np.arange(40, dtype=np.int32).reshape(10, 4)
    dense = np.ones((10, 2), np.float64)
    path = _save(
        tmp_path / "d.npz",
        **{"x_tune.0": tokens, "x_tune.1": dense, "y_tune": _labels(10), "scale.1": 3.0},
    )
    with open_dataset(path) as data:
        assert data.info.inputs == 2
        assert data.info.input_shapes == [[4], [2]]
        assert data.info.transformed == [False, True]
        split = data.split("tune").cast([torch.int64, torch.float64])
        (ids, values), _ = split.batch(0, 3)
    assert ids.dtype is torch.int64
    assert ids.tolist() == tokens[:3].tolist()
    assert values.dtype is torch.float64
    assert values.tolist() == [[3.0, 3.0]] * 3


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i4", "u8", "f2", ">f4", "f8", "?"])
def test_every_numeric_type_arrives_as_its_values(tmp_path: Path, dtype: str) -> None:
    x = np.arange(12).reshape(6, 2).astype(dtype)
    path = _save(tmp_path / "d.npz", x_tune=x, y_tune=_labels(6))
    with open_dataset(path) as data:
        (got,), _ = data.split("tune").batch(0, 6)
    np.testing.assert_array_equal(got.numpy(), x.astype(np.float32))


@pytest.mark.parametrize("compressed", [False, True])
def test_column_major_arrays_read_the_same(tmp_path: Path, compressed: bool) -> None:
    x = np.random.default_rng(3).normal(size=(20, 3, 4))
    plain = _save(tmp_path / "c.npz", x_tune=x, y_tune=_labels(20))
    turned = _save(
        tmp_path / "f.npz", compressed=compressed, x_tune=np.asfortranarray(x), y_tune=_labels(20)
    )
    with open_dataset(plain) as a, open_dataset(turned) as b:
        assert torch.equal(a.split("tune").batch(0, 20)[0][0], b.split("tune").batch(0, 20)[0][0])
        assert a.split("tune").fingerprint == b.split("tune").fingerprint


def test_label_forms_that_are_read_with_a_note(tmp_path: Path) -> None:
    x = np.zeros((6, 2))
    for y in (
        np.array([[0], [1], [2], [0], [1], [2]]),
        np.array([0.0, 1.0, 2.0, 0.0, 1.0, 2.0]),
    ):
        info = inspect_dataset(_save(tmp_path / "d.npz", x_tune=x, y_tune=y))
        assert info.counts == {"tune": [2, 2, 2]}
        assert any("y_tune" in note for note in info.notes)


def test_notes_name_what_is_odd(tmp_path: Path) -> None:
    x = np.zeros((6, 2))
    path = _save(
        tmp_path / "d.npz", x_train=x, y_train=[1, 2, 1, 2, 1, 2], x_tune=x,
        y_tune=[1, 2, 5, 1, 2, 1], X_test=x, junk=np.ones(3),
    )  # fmt: skip
    text = "\n".join(inspect_dataset(path).notes)
    assert "'X_test' isn't used. Did you mean x_test?" in text
    assert "'junk' isn't used." in text
    assert "subtract 1" in text
    assert "tune has labels that never occur in train: 5." in text


def test_fingerprint_follows_content_transform_rows_and_labels(tmp_path: Path) -> None:
    x, y = np.arange(40.0).reshape(20, 2), _labels(20)

    def of(**arrays: object) -> str:
        with open_dataset(_save(tmp_path / "d.npz", **arrays)) as data:
            return data.split("tune").fingerprint

    base = of(x_tune=x, y_tune=y)
    assert base == of(y_tune=y, x_tune=x.copy(), note=np.ones(1))
    changed = x.copy()
    changed[13, 1] += 1e-9
    others = [
        of(x_tune=changed, y_tune=y),
        of(x_tune=x, y_tune=np.roll(y, 1)),
        of(x_tune=x, y_tune=y, scale=2.0),
        of(x_tune=x, y_tune=y, mean=1.0),
        of(x_tune=x, y_tune=y, std=1.5),
        of(x=x, y=y),
    ]
    assert len({base, *others}) == 7


def test_same_content_packed_or_not_has_one_fingerprint(tmp_path: Path) -> None:
    x, y = np.arange(40.0).reshape(20, 2), _labels(20)
    plain = _save(tmp_path / "a.npz", x=x, y=y)
    packed = _save(tmp_path / "b.npz", compressed=True, x=x, y=y)
    with open_dataset(plain) as a, open_dataset(packed) as b:
        for name in ("train", "tune", "test"):
            assert a.split(name).fingerprint == b.split(name).fingerprint


def test_prepared_is_made_once_and_opened_ever_after(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(9, 4))
    path = _save(tmp_path / "d.npz", compressed=True, x_tune=x, y_tune=_labels(9), junk=np.ones(2))
    folder = tmp_path / "made"
    info = inspect_dataset(path, folder=folder)
    assert info.prepared
    assert [p.name for p in folder.iterdir()] == ["prepared"]
    with open_dataset(path, prepared=folder / "prepared") as data:
        assert data.info == info
        got = data.split("tune").batch(0, 9)[0][0]
    np.testing.assert_array_equal(got.numpy(), x.astype(np.float32))
    assert any("'junk' isn't used" in note for note in info.notes)


def test_what_can_be_mapped_is_not_unpacked(tmp_path: Path) -> None:
    path = _save(tmp_path / "d.npz", x_tune=np.ones((9, 4)), y_tune=_labels(9))
    info = inspect_dataset(path, folder=tmp_path / "made")
    assert not info.prepared
    assert not (tmp_path / "made" / "prepared").exists()


def test_without_a_folder_nothing_stays_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    path = _save(tmp_path / "d.npz", compressed=True, x_tune=np.ones((9, 4)), y_tune=_labels(9))
    with open_dataset(path) as data:
        split = data.split("tune")
        assert len(list((tmp_path / "tmp").iterdir())) == 1
    assert list((tmp_path / "tmp").iterdir()) == []
    assert split.batch(0, 9)[0][0].sum() == 36


def test_arrays_are_mapped_not_loaded(tmp_path: Path) -> None:
    path = _save(tmp_path / "d.npz", x_tune=np.ones((9, 4)), y_tune=_labels(9))
    with NpzFile(path) as npz:
        array = npz.array("x_tune")
        while isinstance(array.base, np.ndarray):
            array = array.base
        assert isinstance(array, np.memmap)
        assert not npz.array("x_tune").flags.writeable


@pytest.mark.parametrize("compressed", [False, True])
def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path: Path, compressed: bool) -> None:
    x = np.zeros((3000, 10_000), np.float32)
    path = _save(tmp_path / "d.npz", compressed=compressed, x=x, y=_labels(3000))
    del x
    tracemalloc.start()
    try:
        inspect_dataset(path, folder=tmp_path)
        prepared = tmp_path / "prepared" if compressed else None
        with open_dataset(path, prepared=prepared) as data:
            assert len(data.split("tune").fingerprint) == 64
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60 << 20 < 3000 * 10_000 * 4


def test_bytes_without_a_scale_are_noted(tmp_path: Path) -> None:
    x = np.zeros((9, 4), np.uint8)
    bare = inspect_dataset(_save(tmp_path / "a.npz", x_tune=x, y_tune=_labels(9)))
    scaled = inspect_dataset(_save(tmp_path / "b.npz", x_tune=x, y_tune=_labels(9), scale=1 / 255))
    assert ["no scale" in note for note in bare.notes] == [True]
    assert scaled.notes == []


def test_missing_split_is_named(tmp_path: Path) -> None:
    path = _save(tmp_path / "d.npz", x_tune=np.ones((9, 4)), y_tune=_labels(9))
    with open_dataset(path) as data, pytest.raises(NotFound, match="no test split; it has tune"):
        data.split("test")
