"""A context's key changes with every fact it stands for, and with nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain import cells

FACTS: dict[str, Any] = {
    "model_sha256": "a" * 64,
    "dataset_sha256": "b" * 64,
    "task": "classification",
    "options": {"size": [32, 32], "preset": "cifar10"},
    "split": "tune",
    "granularity": "weight",
    "precision": "float32",
    "method": "looks",
    "recalibrate_batch_norm": False,
    "seed": 0,
}


def test_the_same_facts_have_the_same_key() -> None:
    assert cells.context_key(**FACTS) == cells.context_key(**dict(reversed(FACTS.items())))
    turned = {"options": {"preset": "cifar10", "size": [32, 32]}}
    assert cells.context_key(**FACTS) == cells.context_key(**(FACTS | turned))


def test_no_options_are_no_options() -> None:
    keys = {cells.context_key(**(FACTS | {"options": options})) for options in (None, {})}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("model_sha256", "c" * 64),
        ("dataset_sha256", "c" * 64),
        ("task", "regression"),
        ("options", {"size": [32, 32], "preset": "imagenet"}),
        ("options", {"size": [32, 31], "preset": "cifar10"}),
        ("options", None),
        ("split", "test"),
        ("granularity", "channel"),
        ("precision", "bfloat16"),
        ("method", "sequence"),
        ("recalibrate_batch_norm", True),
        ("seed", 1),
    ],
)
def test_another_fact_has_another_key(name: str, other: Any) -> None:
    assert cells.context_key(**FACTS) != cells.context_key(**(FACTS | {name: other}))


def test_another_engine_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cells.context_key(**FACTS)
    monkeypatch.setattr(cells, "ENGINE_VERSION", cells.ENGINE_VERSION + 1)
    assert cells.context_key(**FACTS) != before


def test_a_data_set_has_a_key_of_its_own_for_each_way_of_reading_it() -> None:
    ways = [
        ("b" * 64, "classification", {"preset": "clip"}),
        ("c" * 64, "classification", {"preset": "clip"}),
        ("b" * 64, "regression", {"preset": "clip"}),
        ("b" * 64, "classification", {}),
    ]
    keys = [cells.dataset_key(*way) for way in ways]
    assert len(set(keys)) == len(ways)
    assert all(len(key) == 64 for key in keys)
