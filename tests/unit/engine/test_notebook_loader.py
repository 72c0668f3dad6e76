"""A user's loader as a data set: every sample once, in its order, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from app.domain.errors import InvalidInput
from worker.engine.formats.datasets import open_dataset
from worker.engine.from_loader import gather, write_dataset

X = torch.randn(37, 3, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(37) % 5


def kept(loader: Any, folder: Path, task: str = "classification"):
    """The split `tune` that a loader becomes, and the first samples."""
    gathered = gather(loader, "The loader", folder, task=task)
    write_dataset({"tune": gathered}, folder / "data.npz")
    return open_dataset(folder / "data.npz", task).split("tune"), gathered.examples


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_every_sample_comes_once_in_the_order_of_the_data(
    tmp_path: Path, batch_size: int, shuffle: bool, drop_last: bool
) -> None:
    loader = DataLoader(
        TensorDataset(X, Y), batch_size=batch_size, shuffle=shuffle, drop_last=drop_last
    )
    split, examples = kept(loader, tmp_path)
    (inputs,), labels = split.batch(0, 37)
    assert torch.equal(inputs, X)
    assert torch.equal(labels, Y)
    assert torch.equal(examples[0], X[:2])


def test_a_choice_of_samples_is_respected(tmp_path: Path) -> None:
    rows = [5, 3, 30]
    split, _ = kept(DataLoader(Subset(TensorDataset(X, Y), rows), batch_size=2), tmp_path)
    assert torch.equal(split.batch(0, 3)[0][0], X[rows])
    sampled = DataLoader(TensorDataset(X, Y), batch_size=2, sampler=rows)
    split, _ = kept(sampled, tmp_path)
    assert torch.equal(split.batch(0, 3)[0][0], X[rows])


@pytest.mark.parametrize(
    "given",
    [
        TensorDataset(X, Y),
        [(X[:20], Y[:20]), [X[20:], Y[20:]]],
        [(X.numpy(), Y.tolist())],
        [(X.double(), Y.to(torch.int32))],
        [((X,), Y)],
    ],
    ids=["data set", "batches", "arrays and lists", "other types", "nested"],
)
def test_what_is_not_quite_a_loader_does_too(tmp_path: Path, given: Any) -> None:
    split, _ = kept(given, tmp_path)
    (inputs,), labels = split.batch(0, 37)
    assert torch.equal(inputs, X)
    assert torch.equal(labels, Y)


@pytest.mark.parametrize("nested", [True, False])
def test_several_inputs_keep_their_order_and_types(tmp_path: Path, nested: bool) -> None:
    ids, half = torch.arange(37 * 6).reshape(37, 6), X.to(torch.bfloat16)
    batch = ((ids, half), Y) if nested else (ids, half, Y)
    split, examples = kept([batch], tmp_path)
    (first, second), labels = split.cast([torch.int64, torch.bfloat16]).batch(0, 37)
    assert torch.equal(first, ids)
    assert torch.equal(second, half)
    assert torch.equal(labels, Y)
    assert [each.dtype for each in examples] == [torch.int64, torch.bfloat16]


def test_a_language_model_needs_tokens_alone(tmp_path: Path) -> None:
    ids = torch.randint(0, 9, (20, 6))
    split, _ = kept([ids[:10], ids[10:]], tmp_path, "language-modelling")
    (inputs,), labels = split.cast([torch.int64]).batch(0, 20)
    assert torch.equal(inputs, ids)
    assert torch.equal(labels[:, :-1], ids[:, 1:])
    assert bool((labels[:, -1] == -100).all())


def test_numbers_to_predict_stay_numbers(tmp_path: Path) -> None:
    split, _ = kept([(X, X[:, 0])], tmp_path, "regression")
    assert torch.equal(split.batch(0, 37)[1], X[:, 0])


class Noisy(Dataset[tuple[Tensor, int]]):
    def __len__(self) -> int:
        return 9

    def __getitem__(self, at: int) -> tuple[Tensor, int]:
        return torch.randn(3), at % 2


def test_random_transforms_draw_from_the_seed_and_leave_the_generator(tmp_path: Path) -> None:
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    one, two, three = (
        gather(Noisy(), "it", tmp_path, task="classification", seed=seed) for seed in (1, 1, 2)
    )
    arrays = [np.array(each.inputs[0].mapped()) for each in (one, two, three)]
    assert np.array_equal(arrays[0], arrays[1])
    assert not np.array_equal(arrays[0], arrays[2])
    assert torch.equal(torch.random.get_rng_state(), before)


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        yield from X


FAULTS = {
    "dictionaries": ([{"input_ids": X, "labels": Y}], "dictionaries .input_ids, labels.*collate"),
    "dictionaries within": ([({"image": X}, Y)], "dictionaries as inputs.*collate_fn"),
    "no labels": ([X], "no labels"),
    "no labels in a tuple": ([(X,)], "no labels"),
    "one sample": ([(X[:1], Y[:1])], "a single sample"),
    "nothing": ([], "yields nothing"),
    "empty": ([(X[:0], Y[:0])], "yields nothing"),
    "ragged": ([(X, Y), (torch.randn(2, 5, 4), Y[:2])], "different shapes.*Pad"),
    "unequal": ([(X, Y[:5])], r"different numbers of samples \(37, 5\)"),
    "changing": ([(X, Y), (X, X, Y)], "different forms"),
    "texts": ([(["a cat", "a dog"], Y[:2])], "list where numbers are needed|str"),
    "samples": ([(torch.tensor(1.0), torch.tensor(1))], "single samples.*batch_size"),
    "an array": (X, "a Tensor, which yields no batches"),
    "a number": (7, "an? int, which yields no batches"),
    "samples alone": (Endless(), "Put it in a DataLoader"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_can_not_be_used_is_said_with_what_to_do(tmp_path: Path, name: str) -> None:
    given, said = FAULTS[name]
    with pytest.raises(InvalidInput, match=f"(?s){said}") as caught:
        kept(given, tmp_path)
    assert "The loader" in str(caught.value)
    assert caught.value.hint


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """200 MB pass through a process that may hold no more than a few batches."""
    import tracemalloc

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for _ in range(50):
            yield np.zeros((64, 16_384), np.float32), np.zeros(64, np.int64)

    tracemalloc.start()
    gathered = gather(batches(), "it", tmp_path, task="classification")
    write_dataset({"tune": gathered}, tmp_path / "data.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert gathered.samples == 3200
    assert peak < 60e6
