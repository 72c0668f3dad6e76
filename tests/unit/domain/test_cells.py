"""A context's key changes with every fact it stands for, and with nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain import cells

FACTS: dict[str, Any] = {
    "model_sha256": "a" * 64,
    "split_fingerprint": "b" * 64,
    "granularity": "weight",
    "evaluation": {"mode": "exact"},
    "recalibrate_batch_norm": False,
    "seed": 0,
}


def test_the_same_facts_have_the_same_key() -> None:
    assert cells.context_key(**FACTS) == cells.context_key(**dict(reversed(FACTS.items())))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("model_sha256", "c" * 64),
        ("split_fingerprint", "c" * 64),
        ("granularity", "channel"),
        ("evaluation", {"mode": "adaptive"}),
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
