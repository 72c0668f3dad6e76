"""A data set that doesn't fit the network is refused with both shapes and a way out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.domain.errors import InputMismatch
from tests.unit.engine.networks import FixedBatch, Tied, canonical
from worker.engine.formats.datasets import check_fit, open_dataset
from worker.engine.graph import CanonicalModel


def _model(shape: tuple[int, ...], folder: Path, outputs: int = 3) -> CanonicalModel:
    module = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), outputs))
    return canonical(module, (torch.zeros(2, *shape),), folder)


def _check(model: CanonicalModel, folder: Path, **arrays: object) -> None:
    np.savez(folder / "d.npz", **arrays)
    with open_dataset(folder / "d.npz") as data:
        check_fit(model, data)


Y = np.arange(6) % 3


@pytest.mark.parametrize(
    ("wanted", "stored", "hint"),
    [
        ((3, 8, 6), (8, 6, 3), 'layout="NHWC"'),
        ((1, 8, 6), (8, 6), "x[:, None]"),
        ((8, 6), (1, 8, 6), "x.squeeze(1)"),
        ((8, 6), (6, 8), "x.transpose(0, 2, 1)"),
        ((48,), (8, 6), "x.reshape(len(x), 48)"),
        ((3, 8, 6), (3, 9, 6), "export the network with example inputs"),
    ],
)
def test_shapes_are_both_named(
    tmp_path: Path, wanted: tuple[int, ...], stored: tuple[int, ...], hint: str
) -> None:
    model = _model(wanted, tmp_path)
    with pytest.raises(InputMismatch) as caught:
        _check(model, tmp_path, x_tune=np.zeros((6, *stored), np.float32), y_tune=Y)
    for shape in (wanted, stored):
        assert "(" + ", ".join(map(str, shape)) + ")" in caught.value.message
    assert hint in caught.value.hint


def test_following_the_layout_hints_fits(tmp_path: Path) -> None:
    model = _model((3, 8, 6), tmp_path)
    last, first = np.zeros((6, 8, 6, 3), np.uint8), np.zeros((6, 3, 8, 6), np.uint8)
    _check(model, tmp_path, x_tune=last, y_tune=Y, layout="NHWC")
    _check(model, tmp_path, x_tune=first, y_tune=Y)
    with pytest.raises(InputMismatch) as caught:
        _check(model, tmp_path, x_tune=first, y_tune=Y, layout="NHWC")
    assert 'remove layout="NHWC"' in caught.value.hint


def test_more_classes_than_outputs(tmp_path: Path) -> None:
    model = _model((4,), tmp_path)
    _check(model, tmp_path, x_tune=np.zeros((6, 4)), y_tune=Y)
    with pytest.raises(InputMismatch, match="Labels go up to 3, but the network has 3 outputs"):
        _check(model, tmp_path, x_tune=np.zeros((6, 4)), y_tune=Y + 1)


def test_network_without_class_scores(tmp_path: Path) -> None:
    model = canonical(nn.Conv1d(1, 1, 3), (torch.zeros(2, 1, 8),), tmp_path)
    with pytest.raises(InputMismatch, match="one row of class scores"):
        _check(model, tmp_path, x_tune=np.zeros((6, 1, 8)), y_tune=Y)
    with pytest.raises(InputMismatch, match="single output"):
        _check(_model((4,), tmp_path, 1), tmp_path, x_tune=np.zeros((6, 4)), y_tune=Y * 0)


def test_token_ids(tmp_path: Path) -> None:
    model = canonical(Tied(), (torch.zeros(2, 5, dtype=torch.int64),), tmp_path)
    tokens = np.zeros((6, 5), np.int32)
    tokens[4, 2] = 11
    _check(model, tmp_path, x_tune=tokens, y_tune=Y)
    with pytest.raises(InputMismatch, match=r"takes whole numbers \(int64\).*float64"):
        _check(model, tmp_path, x_tune=tokens.astype(np.float64), y_tune=Y)
    with pytest.raises(InputMismatch, match="scale, mean and std would change"):
        _check(model, tmp_path, x_tune=tokens, y_tune=Y, scale=2.0)
    tokens[4, 2] = 12
    with pytest.raises(InputMismatch, match="can't be run on samples"):
        _check(model, tmp_path, x_tune=tokens, y_tune=Y)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.left(a) + self.right(b)


def test_number_of_inputs(tmp_path: Path) -> None:
    model = canonical(Two(), (torch.zeros(2, 4), torch.zeros(2, 2)), tmp_path)
    a, b = np.zeros((6, 4)), np.zeros((6, 2))
    _check(model, tmp_path, **{"x_tune.0": a, "x_tune.1": b, "y_tune": Y})
    with pytest.raises(InputMismatch, match="takes 2 inputs, the data set has 1"):
        _check(model, tmp_path, x_tune=a, y_tune=Y)
    with pytest.raises(InputMismatch, match=r"for its input .*, the data set has \(4\)"):
        _check(model, tmp_path, **{"x_tune.0": a, "x_tune.1": a, "y_tune": Y})


def test_a_network_that_gives_nan(tmp_path: Path) -> None:
    module = nn.Linear(4, 3)
    nn.init.constant_(module.weight, float("nan"))
    model = canonical(module, (torch.zeros(2, 4),), tmp_path)
    with pytest.raises(InputMismatch, match="gives NaN"):
        _check(model, tmp_path, x_tune=np.ones((6, 4)), y_tune=Y)


def test_without_the_data_its_description_is_enough(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_tune=np.zeros((6, 4)), y_tune=Y + 1)
    with open_dataset(tmp_path / "d.npz") as data:
        info = data.info
    with pytest.raises(InputMismatch, match="Labels go up to 3"):
        check_fit(_model((4,), tmp_path), info)
    check_fit(_model((4,), tmp_path, 4), info)


def test_fixed_batch_is_filled(tmp_path: Path) -> None:
    model = canonical(FixedBatch(4, 3, batch=16), (torch.zeros(16, 4),), tmp_path, fixed=True)
    assert model.fixed_batch == 16
    _check(model, tmp_path, x_tune=np.zeros((6, 4)), y_tune=Y)


def _fits(model: CanonicalModel, folder: Path, task: str, **arrays: object) -> None:
    """Of the opened data set and of its description alike."""
    np.savez(folder / "d.npz", **arrays)
    with open_dataset(folder / "d.npz", task) as data:
        check_fit(model, data.info)
        check_fit(model, data)


X, REGRESSION, WORDS = np.zeros((6, 4)), "regression", "language-modelling"


def test_yes_no_labels(tmp_path: Path) -> None:
    labels = np.arange(18).reshape(6, 3) % 2
    _fits(_model((4,), tmp_path), tmp_path, "classification", x_tune=X, y_tune=labels)
    with pytest.raises(InputMismatch, match="3 yes/no labels a sample, the network 4 outputs"):
        _fits(_model((4,), tmp_path, 4), tmp_path, "classification", x_tune=X, y_tune=labels)
    with pytest.raises(InputMismatch, match="labels go up to 2"):
        _fits(_model((4,), tmp_path), tmp_path, "classification", x_tune=X, y_tune=labels * 2)


def test_numbers_to_predict(tmp_path: Path) -> None:
    one, three = _model((4,), tmp_path, 1), _model((4,), tmp_path, 3)
    numbers = np.linspace(-5, 900, 6)
    _fits(one, tmp_path, REGRESSION, x_tune=X, y_tune=numbers)
    _fits(one, tmp_path, REGRESSION, x_tune=X, y_tune=numbers[:, None])
    _fits(three, tmp_path, REGRESSION, x_tune=X, y_tune=numbers[:, None] * [1.0, 2.0, 3.0])
    with pytest.raises(InputMismatch, match=r"one number to predict.*network gives 3 numbers"):
        _fits(three, tmp_path, REGRESSION, x_tune=X, y_tune=numbers)


class Each(nn.Module):
    """Scores at every token, or one too few."""

    def __init__(self, width: int, cut: int = 0) -> None:
        super().__init__()
        self.embedding, self.head, self.cut = nn.Embedding(9, 4), nn.Linear(4, width), cut

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embedding(tokens))[:, self.cut :]


def test_classes_of_positions_and_the_next_token(tmp_path: Path) -> None:
    tokens = np.arange(30).reshape(6, 5) % 9
    example = (torch.zeros(2, 5, dtype=torch.int64),)
    whole, short, few = (canonical(Each(*a), example, tmp_path) for a in ((9,), (9, 1), (7,)))
    tags = np.where(tokens == 8, -100, tokens)
    for task, labels in (("classification", tags), (WORDS, tokens)):
        _fits(whole, tmp_path, task, x_tune=tokens, y_tune=labels)
    with pytest.raises(InputMismatch, match=r"labels for \(5\) positions.*gives \(4, 9\)"):
        _fits(short, tmp_path, "classification", x_tune=tokens, y_tune=tags)
    with pytest.raises(InputMismatch, match=r"5 tokens, the network gives \(4, 9\)"):
        _fits(short, tmp_path, WORDS, x_tune=tokens, y_tune=tokens)
    with pytest.raises(InputMismatch, match="Labels go up to 7, but the network has 7 outputs"):
        _fits(few, tmp_path, "classification", x_tune=tokens, y_tune=tags)
    with pytest.raises(InputMismatch, match="the network knows 7 tokens"):
        _fits(few, tmp_path, WORDS, x_tune=tokens, y_tune=tokens)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x / x)


def test_nan_where_nothing_is_judged_is_no_fault(tmp_path: Path) -> None:
    """As attention gives where all of a mask is filling."""
    model = canonical(Masked(), (torch.ones(2, 4, 1),), tmp_path)
    x, y = np.ones((6, 4, 1), np.float32), np.ones((6, 4), np.int64)
    x[0, 3] = 0
    with pytest.raises(InputMismatch, match="gives NaN"):
        _fits(model, tmp_path, "classification", x_tune=x, y_tune=y)
    y[0, 3] = -100
    _fits(model, tmp_path, "classification", x_tune=x, y_tune=y)


class TakesMask(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        weights = attention_mask.unsqueeze(-1).float()
        return self.head((self.words(input_ids) * weights).sum(1) / weights.sum(1))


def test_an_attention_mask_that_is_not_there_is_all_ones(tmp_path: Path) -> None:
    network = TakesMask().eval()
    ids = torch.arange(12).reshape(6, 2) % 9
    model = canonical(network, (ids, torch.ones_like(ids)), tmp_path)
    assert [spec.name for spec in model.inputs] == ["input_ids", "attention_mask"]
    np.savez(tmp_path / "d.npz", x_tune=ids.numpy(), y_tune=Y)
    with open_dataset(tmp_path / "d.npz") as data:
        check_fit(model, data)
        check_fit(model, data.info)
        given, _ = data.split("tune").cast([spec.dtype for spec in model.inputs]).batch(0, 6)
    assert torch.equal(model.module(*given), network(ids, torch.ones_like(ids)))
    with pytest.raises(InputMismatch, match=r"takes 2 inputs, the data set has 3"):
        _check(model, tmp_path, y_tune=Y, **{f"x_tune.{n}": ids.numpy() for n in range(3)})
