"""Measurements of pruned networks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.hostile.saying import (
    DENSE,
    NOT_FIGURES,
    PRUNED,
    Change,
    changed,
    figures,
    refused,
)
from tests.integration.office import Office


def a_measurement() -> dict[str, Any]:
    return {"dense": figures(DENSE, dense=DENSE), "pruned": figures(PRUNED, dense=DENSE)}


def test_an_honest_measurement_is_stored(office: Office) -> None:
    office.measurement()
    office.walls.scripts["measure"] = lambda *_: a_measurement()
    office.run()
    assert office.rows() == {"measurement": 1}


@pytest.mark.parametrize("part", ["dense", "pruned"])
@pytest.mark.parametrize("change", NOT_FIGURES)
def test_a_measurement_that_can_not_be_is_not_stored(
    office: Office, change: Change, part: str
) -> None:
    office.measurement()
    said = changed(a_measurement(), change, part)
    refused(office, "measure", lambda *_: said)
    assert office.rows() == {}
