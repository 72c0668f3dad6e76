"""What an honest child says of a network, and ways of changing it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from app.domain.errors import ChildMalformed
from app.domain.metrics import METRICS, Kind
from app.domain.statistics import wilson
from tests.integration.office import SAMPLES, Office
from tests.support.walls import Script

Change = Callable[[Any], object]


DENSE, PRUNED = 32, 30


def figures(correct: int, split: str = "tune", dense: int | None = None) -> dict[str, Any]:
    """Honest figures of a split."""
    samples = SAMPLES[split]
    interval = wilson(correct, samples)
    accuracy = {"value": correct / samples, "low": interval.low, "high": interval.high}
    nothing = {"value": None, "low": None, "high": None}
    metrics = {metric.name: nothing for metric in METRICS[Kind.SINGLE_LABEL]}
    lost = None if dense is None else max(0, dense - correct)
    gained = None if dense is None else max(0, correct - dense)
    return {
        "kind": "single-label",
        "samples": samples,
        "correct": correct,
        "accuracy": correct / samples,
        "low": interval.low,
        "high": interval.high,
        "loss": 0.5,
        "flips": None if lost is None or gained is None else lost + gained,
        "lost": lost,
        "gained": gained,
        "metrics": metrics | {"accuracy": accuracy, "loss": nothing | {"value": 0.5}},
    }


def put(*path: Any) -> Change:
    """Replaces what is at the path (all but the last) by the last."""
    *steps, last, value = path

    def change(said: Any) -> None:
        for step in steps:
            said = said[step]
        said[last] = value

    return change


def drop(*path: Any) -> Change:
    *steps, last = path

    def change(said: Any) -> None:
        for step in steps:
            said = said[step]
        del said[last]

    return change


NOT_FIGURES: list[Change] = [
    put("kind", "fortune-telling"),
    put("kind", "regression"),
    put("samples", 41),
    put("samples", 0),
    put("samples", -1),
    put("samples", True),
    put("correct", 41),
    put("correct", -1),
    put("correct", 31),
    put("correct", None),
    put("correct", 1 << 80),
    put("accuracy", 0.9),
    put("accuracy", 1.5),
    put("accuracy", None),
    put("accuracy", "0.75"),
    put("low", 0.99),
    put("high", 0.1),
    put("loss", float("nan")),
    put("loss", float("inf")),
    put("loss", [0.5]),
    put("metrics", {}),
    put("metrics", "accuracy", "value", 7.0),
    put("metrics", "accuracy", "low", None),
    put("metrics", "profit", {"value": 1.0, "low": None, "high": None}),
    put("metrics", "top5", "secret", 1),
    drop("metrics", "auroc"),
    drop("lost"),
    put("extra", "x" * 10_000_000),
]
NOT_PAIRED: list[Change] = [
    put("lost", 9),
    put("gained", 4),
    put("flips", 1),
    put("flips", 1000),
    put("flips", None),
]


def changed(honest: Any, change: Change, *path: Any) -> Any:
    """A copy in which `change` was made to what is at the path."""
    said = copy.deepcopy(honest)
    place = said
    for step in path:
        place = place[step]
    change(place)
    return said


def refused(office: Office, recipe: str, script: Script) -> ChildMalformed:
    """The next job ends as malformed, and no row says what the child said."""
    office.walls.scripts[recipe] = script
    with pytest.raises(ChildMalformed) as caught:
        office.run()
    assert len(caught.value.message) < 500
    return caught.value


def deep(levels: int) -> Any:
    nested: Any = []
    for _ in range(levels):
        nested = [nested]
    return nested
