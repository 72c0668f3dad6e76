from __future__ import annotations

import math

import pytest

from app.domain.adaptive import Drop
from app.domain.knee import knee_of


def at(*values: float) -> list[tuple[float, Drop]]:
    return [((i + 1) / 10, Drop(v, v - 0.01, v + 0.01)) for i, v in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "sparsity"),
    [
        ((), None),
        ((0.02,), None),
        ((0.01,), 0.1),
        ((-0.02, 0.0, 0.01, 0.3), 0.3),
        ((0.0, 0.3, 0.0, 0.0), 0.1),  # never past a cliff
        ((0.0, math.nan, 0.0), 0.1),
    ],
)
def test_the_last_level_before_the_first_that_is_too_much(
    values: tuple[float, ...], sparsity: float | None
) -> None:
    found = knee_of(at(*values), 0.01)
    assert (found.sparsity if found else None) == sparsity
    if found is not None:
        assert found.drop in [drop for _, drop in at(*values)]
