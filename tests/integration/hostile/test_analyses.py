"""Exact analyses, and the messages they are told in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.domain.metrics import METRICS, Kind
from app.store.tables import (
    Analysis,
    Point,
)
from tests.integration.hostile.saying import (
    DENSE,
    NOT_FIGURES,
    NOT_PAIRED,
    PRUNED,
    Change,
    changed,
    figures,
    put,
    refused,
)
from tests.integration.office import SIZES, Office
from tests.support.walls import Script, Tell


def a_point(unit: str, level: int) -> dict[str, Any]:
    said = figures(PRUNED, dense=DENSE)
    return {"unit": unit, "criterion": "magnitude", "level": level, "figures": said}


GRID = [(unit, level) for unit in SIZES for level in (250_000, 500_000)]


def analysing(baseline: Any = None, points: Any = None, *more: tuple[str, Any]) -> Script:
    def child(arguments: Any, files: Any, folder: Path, tell: Tell) -> dict[str, Any]:
        tell("baseline", figures(DENSE, dense=DENSE) if baseline is None else baseline)
        tell("progress", {"fraction": 0.25, "seconds": 3.0})
        listed = [a_point(*cell) for cell in GRID] if points is None else points
        for point in listed:
            tell("points", {"points": [point]})
        for kind, body in more:
            tell(kind, body)
        return {}

    return child


def test_honest_points_are_stored_under_the_workers_own_key(office: Office) -> None:
    analysis = office.analysis()
    office.walls.scripts["analyse"] = analysing()
    office.run()
    assert office.rows() == {"baseline": 1, "point": len(GRID)}
    with office.store.read() as session:
        key = session.get_one(Analysis, analysis.id).context
        row = session.get_one(Point, (key, "a.weight", "magnitude", 250_000))
    assert (row.size, row.removed, row.correct) == (100, 25, PRUNED)
    assert (row.lost, row.gained, row.flips) == (2, 0, 2)


@pytest.mark.parametrize("change", NOT_FIGURES)
def test_a_baseline_that_can_not_be_is_not_stored(office: Office, change: Change) -> None:
    office.analysis()
    refused(office, "analyse", analysing(changed(figures(DENSE, dense=DENSE), change)))
    assert office.rows() == {}


@pytest.mark.parametrize("change", NOT_FIGURES + NOT_PAIRED)
def test_a_point_that_can_not_be_is_not_stored(office: Office, change: Change) -> None:
    office.analysis()
    bad = changed(a_point(*GRID[1]), change, "figures")
    refused(office, "analyse", analysing(None, [a_point(*GRID[0]), bad]))
    assert office.rows() == {"baseline": 1, "point": 1}


@pytest.mark.parametrize(
    "bad",
    [
        changed(a_point(*GRID[1]), put("unit", "c.weight")),
        changed(a_point(*GRID[1]), put("unit", "a.bias")),
        changed(a_point(*GRID[1]), put("unit", "x" * 5000)),
        changed(a_point(*GRID[1]), put("criterion", "random")),
        changed(a_point(*GRID[1]), put("level", 300_000)),
        changed(a_point(*GRID[1]), put("level", 250_000.0)),
        changed(a_point(*GRID[1]), put("context", "0" * 64)),
        a_point(*GRID[0]),
        {},
    ],
)
def test_a_cell_that_nobody_asked_for_is_not_stored(office: Office, bad: Any) -> None:
    """Nor one that was told before, and nothing may be added to it, least of all a key."""
    office.analysis()
    refused(office, "analyse", analysing(None, [a_point(*GRID[0]), bad]))
    assert office.rows() == {"baseline": 1, "point": 1}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("baseline", figures(DENSE, dense=DENSE)),
        ("progress", {"fraction": 1.5, "seconds": None}),
        ("progress", {"fraction": 0.5, "seconds": -1.0}),
        ("progress", {"fraction": "half", "seconds": 1.0}),
        ("points", {"points": "all"}),
        ("points", {}),
        ("epoch", {}),
        ("x" * 1000, {}),
    ],
)
def test_a_message_that_has_no_place_is_refused(office: Office, kind: str, body: Any) -> None:
    office.analysis()
    refused(office, "analyse", analysing(None, [], (kind, body)))
    assert office.rows() == {"baseline": 1}


def test_an_end_before_everything_is_measured_is_refused(office: Office) -> None:
    office.analysis()
    refused(office, "analyse", analysing(None, [a_point(*GRID[0])]))
    office.give_up()
    office.analysis()
    refused(office, "analyse", lambda *_: {})


def test_points_before_the_baseline_are_refused(office: Office) -> None:
    office.analysis()

    def child(arguments: Any, files: Any, folder: Path, tell: Tell) -> dict[str, Any]:
        tell("points", {"points": [a_point(*GRID[0])]})
        return {}

    refused(office, "analyse", child)
    assert office.rows() == {}


def test_a_later_child_can_not_change_what_is_predicted(office: Office) -> None:
    """The kind is a fact of the context from the first baseline on."""
    model, dataset = office.model(), office.dataset()
    office.analysis(model, dataset)
    refused(office, "analyse", analysing(None, [a_point(*GRID[0])]))
    office.give_up()
    office.analysis(model, dataset)
    other = figures(DENSE, dense=DENSE) | {"kind": "per-position"}
    names = [metric.name for metric in METRICS[Kind.PER_POSITION]]
    other["metrics"] = {name: other["metrics"][name] for name in names}
    refused(office, "analyse", analysing(other))
    assert office.walls.asked[-1][1]["cells"] == [
        ("a.weight", "magnitude", [500_000]),
        ("b.weight", "magnitude", [250_000, 500_000]),
    ]
