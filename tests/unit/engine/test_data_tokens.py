"""Token ids: the next token as written out by hand, windows of a long text cut in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from app.domain.errors import InvalidFile, InvalidInput
from worker.engine.formats import label_rows
from worker.engine.formats.datasets import inspect_dataset, open_dataset
from worker.engine.formats.tokens import next_tokens

LM = "language-modelling"
RNG = np.random.default_rng(2)


def _save(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "d.npz", **arrays)
    return folder / "d.npz"


def by_hand(ids: Any, mask: Any = None, pad: int | None = None) -> list[list[int]]:
    """Hugging Face's convention: labels are the ids, -100 where padded, then moved by one."""
    rows = []
    for i, row in enumerate(ids):
        labels = []
        for t in range(len(row)):
            if t + 1 == len(row) or (mask is not None and not mask[i][t + 1]) or row[t + 1] == pad:
                labels.append(-100)
            else:
                labels.append(int(row[t + 1]))
        rows.append(labels)
    return rows


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_next_tokens_equal_those_by_hand(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8))
    ids = data.draw(hnp.arrays(np.uint16, shape, elements=st.integers(0, 6)))
    mask = data.draw(st.none() | hnp.arrays(np.int8, shape, elements=st.integers(0, 1)))
    pad = data.draw(st.none() | st.integers(0, 6))
    labels = next_tokens(ids, mask, pad)
    expected = by_hand(ids, mask, pad)
    assert labels[:].tolist() == expected
    rows = np.array(data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=1)))
    assert labels[rows].tolist() == [expected[r] for r in rows]
    assert labels.at(rows)[-1].tolist() == expected[rows[-1]]


@pytest.mark.parametrize("small", [64 << 20, 0])
def test_rows_of_ids_with_their_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(label_rows, "SMALL", small)
    ids = RNG.integers(0, 50, (40, 6)).astype(np.int32)
    mask = (np.arange(6) < RNG.integers(2, 7, (40, 1))).astype(np.int64)
    path = _save(tmp_path, **{"x_tune.0": ids, "x_tune.1": mask})
    info = inspect_dataset(path, LM)
    assert any("x_tune.1 was read as the attention mask" in note for note in info.notes)
    assert info.label_shape == [6]
    with open_dataset(path, LM) as data:
        assert data.info == info
        split = data.split("tune").cast([torch.int64, torch.int64])
        (got, got_mask), labels = split.batch(3, 30)
    assert torch.equal(got, torch.tensor(ids[3:30], dtype=torch.int64))
    assert torch.equal(got_mask, torch.tensor(mask[3:30]))
    assert labels.tolist() == by_hand(ids, mask)[3:30]
    with open_dataset(path, LM, {"mask": False}) as data:
        assert data.split("tune").batch(0, 40)[1].tolist() == by_hand(ids)
    with open_dataset(path, LM, {"mask": False, "pad_token": 7}) as data:
        assert data.split("tune").batch(0, 40)[1].tolist() == by_hand(ids, pad=7)
    with pytest.raises(InvalidInput) as caught:
        open_dataset(path, LM, {"mask": 2})
    assert list(caught.value.fields) == ["options.mask"]


def test_token_types_are_no_mask(tmp_path: Path) -> None:
    ids = RNG.integers(0, 50, (40, 6))
    types = np.array([[0, 0, 1, 1, 0, 0]] * 40)
    info = inspect_dataset(_save(tmp_path, **{"x_tune.0": ids, "x_tune.1": types}), LM)
    assert not any("mask" in note for note in info.notes)


def test_given_labels_are_aligned_or_moved(tmp_path: Path) -> None:
    ids = RNG.integers(0, 50, (30, 5))
    labels = RNG.integers(0, 50, (30, 5))
    labels[:, -1] = -100
    path = _save(tmp_path, x_tune=ids, y_tune=labels)
    with open_dataset(path, LM) as data:
        assert data.split("tune").batch(0, 30)[1].tolist() == labels.tolist()
    with open_dataset(path, LM, {"labels": "shift"}) as data:
        assert data.split("tune").batch(0, 30)[1].tolist() == by_hand(labels)


@pytest.mark.parametrize("compressed", [False, True])
def test_one_long_text_is_cut_into_windows_in_order(tmp_path: Path, compressed: bool) -> None:
    text = np.arange(1000, dtype=np.uint16)
    path = tmp_path / "d.npz"
    (np.savez_compressed if compressed else np.savez)(path, x=text)
    info = inspect_dataset(path, LM, {"block": 32}, folder=tmp_path)
    assert info.input_shape == [32]
    assert info.prepared == compressed
    assert sum(info.splits.values()) == 31
    prepared = tmp_path / "prepared" if compressed else None
    with open_dataset(path, LM, {"block": 32}, prepared=prepared) as data:
        parts = [data.split(name).batch(0, 99) for name in ("train", "tune", "test")]
    joined = torch.cat([inputs[0] for inputs, _ in parts]).flatten()
    assert joined.tolist() == list(range(31 * 32))
    for inputs, labels in parts:
        assert torch.equal(labels[:, :-1], inputs[0][:, 1:].long())
        assert (labels[:, -1] == -100).all()
    assert [len(labels) for _, labels in parts] == [19, 6, 6]


def test_tune_of_a_text_is_cut_from_the_end_of_train(tmp_path: Path) -> None:
    path = _save(tmp_path, x_train=np.arange(640), x_test=np.arange(5000, 5640))
    with open_dataset(path, LM, {"block": 64}) as data:
        assert data.info.splits == {"train": 8, "tune": 2, "test": 10}
        assert data.split("tune").batch(0, 9)[0][0].flatten().tolist() == list(range(512, 640))


def test_labels_of_a_long_text(tmp_path: Path) -> None:
    text = np.arange(100)
    path = _save(tmp_path, x_tune=text, y_tune=text + 1)
    with open_dataset(path, LM, {"block": 10}) as data:
        inputs, labels = data.split("tune").batch(0, 10)
    assert torch.equal(labels, inputs[0].long() + 1)


@pytest.mark.parametrize(
    ("arrays", "options", "sentence"),
    [
        ({"x_tune": np.ones((9, 4), np.float32)}, {}, "first input are token ids"),
        ({"x_tune": np.ones((9, 4, 2), int)}, {}, "first input are token ids"),
        ({"x_tune": np.ones((9, 1), int)}, {}, "a single token"),
        ({"x_tune": np.ones(100, int)}, {"block": 128}, "100 tokens, fewer than one window"),
        ({"x_tune.0": np.ones(300, int), "x_tune.1": np.ones(300, int)}, {}, "one long row"),
        ({"x_tune": np.ones((9, 4), int), "y_tune": np.ones((9, 3), int)}, {}, "one token at each"),
        ({"x_tune": np.full((9, 4), -1)}, {}, "negative token ids"),
        ({"x_tune": np.ones((9, 4), int), "y_test": np.ones((9, 4), int)}, {}, "y_tune is missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_faults(tmp_path: Path, arrays: Any, options: Any, sentence: str) -> None:
    with pytest.raises(InvalidFile, match=sentence) as caught:
        inspect_dataset(_save(tmp_path, **arrays), LM, options)
    assert caught.value.hint


def test_masks_beside_class_labels(tmp_path: Path) -> None:
    ids, mask = RNG.integers(0, 50, (40, 6)).astype(np.int32), np.ones((40, 6), bool)
    path = _save(tmp_path, **{"x.0": ids, "x.1": mask, "y": np.arange(40) % 2})
    with open_dataset(path) as data:
        split = data.split("train").cast([torch.int32, torch.bool])
        (got, got_mask), labels = split.batch(0, 5)
        assert data.info.dtypes == ["int32", "bool"]
    assert got.dtype is torch.int32
    assert got_mask.dtype is torch.bool
    assert labels.shape == (5,)
