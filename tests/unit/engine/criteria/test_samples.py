"""Which training samples are looked at."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.engine.criteria import slow
from tests.unit.engine.traced import plain_units, split_of, trace
from worker.engine.criteria import removals
from worker.engine.criteria.samples import sample_count, sample_rows, training_batch


def split(labels: np.ndarray, samples: int = 0):
    x = np.random.default_rng(0).standard_normal((len(labels), 6)).astype(np.float32)
    return split_of([x], labels)


def test_every_class_has_its_share() -> None:
    labels = np.repeat([0, 1, 2], [4000, 800, 200])
    rows = sample_rows(split(labels), 1000, 0)
    assert Counter(labels[rows].tolist()) == {0: 800, 1: 160, 2: 40}
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert rows.tolist() == sample_rows(split(labels), 1000, 0).tolist()
    assert rows.tolist() != sample_rows(split(labels), 1000, 1).tolist()


def test_targets_and_several_labels() -> None:
    numbers = np.random.default_rng(1).exponential(size=5000).astype(np.float32)
    rows = sample_rows(split(numbers), 1000, 0)
    edges = np.quantile(numbers, np.arange(1, 10) / 10)
    share = np.bincount(np.searchsorted(edges, numbers[rows]), minlength=10)
    assert share.tolist() == [100] * 10
    several = np.random.default_rng(2).integers(0, 2, (5000, 4)).astype(np.float32)
    assert len(set(sample_rows(split(several), 1000, 0).tolist())) == 1000


def test_a_small_split_is_seen_whole() -> None:
    assert sample_rows(split(np.arange(50) % 3), 1000, 0).tolist() == list(range(50))


def test_large_networks_see_fewer() -> None:
    small = trace(nn.Linear(6, 3))
    assert sample_count(small) == 1024
    with torch.device("meta"):
        assert sample_count(trace(nn.Linear(10_000, 2_000))) == 2**34 // 20_002_000
        assert sample_count(trace(nn.Linear(20_000, 20_000))) == 128


def test_the_seed_chooses_and_the_same_seed_chooses_the_same() -> None:
    torch.manual_seed(0)
    model = trace(nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)))
    train = split(np.random.default_rng(3).integers(0, 3, 3000))
    names = ["taylor", "snip", "wanda", "sparsegpt"]
    found = [
        removals(model, plain_units(model), names, seed=seed, train=train) for seed in (0, 0, 1)
    ]
    for name in names:
        first, second, other = (slow.removal(f, "0.weight", name).rank for f in found)
        assert torch.equal(first, second)
        assert not torch.equal(first, other)


def test_batches_follow_from_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trace(nn.Sequential(nn.Linear(6, 1000), nn.Tanh(), nn.Linear(1000, 3)))
    train = split(np.arange(300) % 3)
    assert training_batch(model, train) == 64
    monkeypatch.setattr("worker.engine.criteria.samples._ACTIVATION_BYTES", 4 * 20 * 2009)
    assert training_batch(model, train) == 20
    one = removals(model, plain_units(model), ["snip"], seed=0, train=train)
    monkeypatch.undo()
    other = removals(model, plain_units(model), ["snip"], seed=0, train=train)
    # Another batch size is another order of sums, and nothing more.
    same = (
        slow.removal(one, "2.weight", "snip").rank == slow.removal(other, "2.weight", "snip").rank
    )
    assert float(same.float().mean()) > 0.9
