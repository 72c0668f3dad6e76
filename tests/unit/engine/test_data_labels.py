"""Labels of every task: what a batch gives equals the file; what can't be meant is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from app.domain.errors import InvalidFile, InvalidInput
from worker.engine.formats import label_rows
from worker.engine.formats.datasets import inspect_dataset, open_dataset
from worker.engine.formats.label_rows import LabelRows
from worker.engine.formats.splitting import by_target, choose_rows

RNG = np.random.default_rng(5)
X = RNG.normal(size=(60, 3)).astype(np.float32)


def _file(folder: Path, y: np.ndarray, **more: Any) -> Path:
    np.savez(folder / "d.npz", x_tune=X, y_tune=y, **more)
    return folder / "d.npz"


@pytest.mark.parametrize("small", [64 << 20, 0])
@pytest.mark.parametrize(
    ("task", "y", "kind"),
    [
        ("classification", RNG.integers(0, 5, (60, 7)), torch.int64),
        ("classification", RNG.integers(0, 2, (60, 4)).astype(np.uint8), torch.int64),
        ("classification", RNG.integers(0, 3, (60, 2, 5)), torch.int64),
        ("classification", RNG.integers(0, 2, (60, 4)).astype(bool), torch.float32),
        ("classification", RNG.integers(0, 2, (60, 4)).astype(np.float64), torch.float32),
        ("classification", RNG.integers(0, 2, (60, 1)).astype(np.float32), torch.float32),
        ("regression", RNG.normal(size=60), torch.float32),
        ("regression", RNG.integers(-5, 5, 60), torch.float32),
        ("regression", RNG.normal(size=(60, 1)).astype(np.float16), torch.float32),
        ("regression", RNG.normal(size=(60, 2, 3)).astype(">f4"), torch.float32),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else None,
)
def test_labels_arrive_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, y: Any, kind: Any, small: int
) -> None:
    monkeypatch.setattr(label_rows, "SMALL", small)
    path = tmp_path / "d.npz"
    np.savez(path, x=X, y=y)
    info = inspect_dataset(path, task)
    assert info.label_shape == list(y.shape[1:])
    assert info.counts == {}
    with open_dataset(path, task) as data:
        found = []
        for name in data.names:
            split = data.split(name)
            assert split.task == task
            assert split.labels.dtype.kind != "i" or task == "classification"
            _, labels = split.batch(0, 1000)
            assert labels.dtype is kind
            np.testing.assert_allclose(labels.numpy(), split.labels[:], rtol=1e-6)
            np.testing.assert_array_equal(np.asarray(split.labels), split.labels[:])
            order = np.array([3, 0, 3])
            assert torch.equal(split.gather(order)[1], labels[order])
            whole = np.arange(60)[
                np.array(
                    [
                        np.flatnonzero((row == X).all(1))[0]
                        for row in split.batch(0, 99)[0][0].numpy()
                    ]
                )
            ]
            np.testing.assert_allclose(labels.numpy(), y[whole].astype(np.float32), rtol=1e-6)
            found += whole.tolist()
            assert isinstance(split.labels, LabelRows) == (small == 0)
    assert sorted(found) == list(range(60))


def test_ignored_positions_are_kept(tmp_path: Path) -> None:
    y = RNG.integers(0, 4, (60, 6))
    y[:, 4:] = -100
    with open_dataset(_file(tmp_path, y)) as data:
        assert data.info.classes == 4
        assert torch.equal(data.split("tune").batch(0, 60)[1], torch.tensor(y))


@pytest.mark.parametrize(
    ("task", "y", "sentence"),
    [
        ("classification", RNG.integers(-3, 4, (60, 6)), "negative and not -100"),
        ("classification", RNG.random((60, 4)), "neither 0 nor 1"),
        ("classification", RNG.random((60, 4, 2)), "labels for each position are"),
        ("classification", np.eye(4)[np.arange(60) % 4].astype(bool), "one-hot"),
        ("classification", RNG.normal(size=60), "not whole numbers"),
        ("regression", np.full(60, np.nan), "60 labels that are NaN"),
        ("regression", np.full((60, 2), 1e300), "beyond float32"),
        ("regression", np.ones(60, bool), "False and True"),
        ("regression", np.full(60, "a"), "holds text; what is predicted are numbers"),
        ("language-modelling", np.ones((60, 3)), "token ids"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_faults(tmp_path: Path, task: str, y: Any, sentence: str) -> None:
    with pytest.raises(InvalidFile, match=sentence) as caught:
        inspect_dataset(_file(tmp_path, y), task)
    assert caught.value.hint


def test_one_hot_can_be_said(tmp_path: Path) -> None:
    classes = np.arange(60) % 4
    path = _file(tmp_path, np.eye(4, dtype=np.float32)[classes])
    with open_dataset(path, options={"labels": "one-hot"}) as data:
        assert data.split("tune").batch(0, 60)[1].tolist() == classes.tolist()
        assert data.info.classes == 4
    with open_dataset(path, options={"labels": "multi-label"}) as data:
        assert data.info.label_shape == [4]
    y = np.eye(4)[classes]
    y[7, 3] = y[7, 0] = 1
    path = _file(tmp_path, y)
    with pytest.raises(InvalidFile, match="Row 7 of y_tune is not one-hot"):
        inspect_dataset(path, options={"labels": "one-hot"})


def test_splits_labelled_differently_are_refused(tmp_path: Path) -> None:
    y = np.arange(60) % 3
    with pytest.raises(InvalidFile, match="not labelled alike"):
        inspect_dataset(_file(tmp_path, y, x_test=X, y_test=np.stack([y, y, y], 1)))


@pytest.mark.parametrize(
    ("task", "options", "field"),
    [
        ("classification", {"labels": "shift"}, "options.labels"),
        ("classification", {"size": 3}, "options.size"),
        ("regression", {"labels": "one-hot"}, "options.labels"),
        ("language-modelling", {"block": 1}, "options.block"),
        ("language-modelling", {"block": True}, "options.block"),
        ("language-modelling", {"pad_token": -1}, "options.pad_token"),
        ("language-modelling", {"mask": 0}, "options.mask"),
        ("guessing", {}, "task"),
        ("classification", [1], "options"),
    ],
)
def test_wrong_options_name_their_field(
    tmp_path: Path, task: str, options: Any, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        inspect_dataset(_file(tmp_path, np.arange(60) % 3), task, options)
    assert list(caught.value.fields) == [field]
    assert caught.value.hint


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=5, max_size=300),
    st.integers(0, 5),
    st.booleans(),
)
def test_regression_is_cut_into_disjoint_parts_of_the_right_size(
    values: list[float], seed: int, ties: bool
) -> None:
    targets = np.round(values, -3) if ties else np.array(values)
    notes: list[str] = []
    try:
        rows = choose_rows({"": len(targets)}, {"": by_target(targets)}, seed, notes)
    except InvalidFile:
        event("too few to cut")
        # Each decile leaves a row behind, so forty are always enough.
        few = len(targets) < 40
        assume(not few)
        raise
    taken = [index for _, index in rows.values()]
    joined = np.concatenate([index for index in taken if index is not None])
    assert sorted(joined.tolist()) == list(range(len(targets)))
    wanted = round(0.2 * len(targets))
    for name in ("tune", "test"):
        index = rows[name][1]
        assert index is not None
        assert wanted - 10 <= len(index) <= wanted
        assert (np.diff(index) > 0).all()
    again = choose_rows({"": len(targets)}, {"": by_target(targets)}, seed, [])
    assert all(np.array_equal(rows[n][1], again[n][1]) for n in rows)  # type: ignore[arg-type]


def test_regression_parts_have_like_targets() -> None:
    values = np.sort(np.random.default_rng(0).exponential(size=1000))
    rows = choose_rows({"": 1000}, {"": by_target(values)}, 0, [])
    deciles = np.quantile(values, np.arange(1, 10) / 10)
    for _, index in rows.values():
        counts = np.bincount(np.searchsorted(deciles, values[index], side="right"), minlength=10)
        np.testing.assert_array_equal(counts, len(values[index]) / 10)
