"""What is said of evaluations that make no sense, and that the others pass."""

from __future__ import annotations

import math
from typing import Any

import pytest

from app.domain.evaluation_checks import faults_of
from app.domain.goals import DEFAULT_EVALUATION


def test_the_usual_one_has_no_fault() -> None:
    assert faults_of(DEFAULT_EVALUATION) == {}
    assert faults_of(dict.fromkeys(DEFAULT_EVALUATION)) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "lazy"),
        ("method", 3),
        ("precision", "float16"),
        ("half_width", 0),
        ("half_width", 1),
        ("half_width", "0.1"),
        ("half_width", True),
        ("half_width", math.nan),
        ("relative", -0.1),
        ("tolerance", 1.1),
        ("confidence", 0.5),
        ("confidence", 1.0),
        ("refine", -1),
        ("refine", 1.5),
        ("refine", 21),
        ("refine", math.nan),
        ("speed", "high"),
    ],
)
def test_a_fault_is_named(name: str, value: Any) -> None:
    faults = faults_of({name: value})
    assert list(faults) == [name]
    assert faults[name].endswith(".")


@pytest.mark.parametrize(
    ("name", "value"),
    [("relative", 0), ("relative", 1), ("tolerance", 0.0), ("confidence", 0.999), ("refine", 20)],
)
def test_bounds_that_may_be_taken(name: str, value: Any) -> None:
    assert faults_of({name: value}) == {}
