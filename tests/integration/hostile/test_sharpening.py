"""Cells that become sharper, refinements, remarks, several children."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from sqlalchemy import delete, select

from app.domain.errors import ChildMalformed, Stopped
from app.domain.words import JobState
from app.store import analyses
from app.store.tables import (
    Analysis,
    Dataset,
    Job,
    Model,
    Point,
)
from tests.integration.hostile.parts import (
    LARGE,
    PART_CELLS,
    STREAM,
    a_large_baseline,
    a_part,
    a_whole,
    bits,
    parting,
    text_of,
)
from tests.integration.hostile.saying import refused
from tests.integration.office import Office, a_unit
from tests.support.walls import Tell
from worker.crew import Crew
from worker.sandbox.walls import Walls


def test_a_cell_only_ever_becomes_sharper_and_ends_once(large: Office) -> None:
    cell = PART_CELLS[0]
    for listed in (
        [a_part(*cell, 64, settled=False), a_part(*cell, 32, settled=False)],
        [a_part(*cell, 64, settled=False), a_part(*cell, 64, settled=False)],
        [a_part(*cell, 64), a_part(*cell, 96)],
        [a_part(*cell, 64), a_part(*cell, 64)],
        [a_whole(*cell), a_whole(*cell)],
        [a_part(*cell, 64, settled=False), a_part(*cell, 32)],
    ):
        refused(large, "analyse", parting(listed))
        assert large.rows() == {"baseline": 1, "point": 1}
        with large.store.write() as session:
            session.execute(delete(Point))
            for job in session.scalars(select(Job).where(Job.kind == "analyse")):
                job.state, job.lease_token = JobState.QUEUED, None
    both = [a_part(*PART_CELLS[1], 64), a_part(*cell, 64, settled=False), a_part(*cell, 64)]
    large.walls.scripts["analyse"] = parting(both)
    large.run()


def test_a_cell_that_was_never_settled_is_missing_at_the_end(large: Office) -> None:
    listed = [a_part(*PART_CELLS[0]), a_part(*PART_CELLS[1], settled=False)]
    caught = refused(large, "analyse", parting(listed))
    assert "1 cells left out" in caught.message


REMARK = {"unit": "a.weight", "criterion": "magnitude", "reason": "Every entry is zero already."}


def test_a_remark_stands_for_the_cells_of_its_curve(large: Office) -> None:
    large.walls.scripts["analyse"] = parting(
        [a_part(*PART_CELLS[1])], None, ("remarks", {"units": [REMARK]})
    )
    large.run()
    with large.store.read() as session:
        (row,) = session.scalars(select(Analysis))
    assert row.remarks == [REMARK]


@pytest.mark.parametrize(
    "units",
    [
        [REMARK | {"unit": "c.weight"}],
        [REMARK | {"criterion": "random"}],
        [REMARK | {"reason": "x" * 10_000}],
        [REMARK | {"reason": None}],
        [REMARK, REMARK],
        [REMARK | {"unit": "b.weight"}],
        "all",
    ],
)
def test_a_remark_that_can_not_be_is_refused(large: Office, units: Any) -> None:
    remark = ("remarks", {"units": units})
    refused(large, "analyse", parting([a_part(*PART_CELLS[1])], None, remark))
    with large.store.read() as session:
        (row,) = session.scalars(select(Analysis))
    assert row.remarks is None


def test_a_refinement_adds_few_levels_and_only_where_asked(office: Office) -> None:
    dataset, model = office.dataset(), office.model()
    with office.store.write() as session:
        session.get_one(Dataset, dataset.id).splits = {"tune": LARGE}

    def told(units: list[str], *listed: tuple[str, int]) -> Any:
        with office.store.write() as session:
            row = analyses.create(
                session, model_id=model.id, dataset_id=dataset.id, levels=[250_000], units=units,
                evaluation={"refine": 2, "precision": "bfloat16"},
            )  # fmt: skip
        grid = [(unit, 250_000) for unit in units]
        office.walls.scripts["analyse"] = parting([a_part(*cell) for cell in [*grid, *listed]])
        try:
            office.run()
        finally:
            office.give_up()
            with office.store.write() as session:
                session.execute(delete(Point))
                extra = analyses.get(session, row.id).extra
        return extra

    fine = [("a.weight", 125_000), ("a.weight", 187_500)]
    assert told(["a.weight"], *fine) == [["a.weight", "magnitude", cell[1]] for cell in fine]
    for bad in (
        [*fine, ("a.weight", 150_000)],
        [("b.weight", 125_000)],
        [("a.weight", 0)],
        [("a.weight", 1_000_000)],
    ):
        with pytest.raises(ChildMalformed):
            told(["a.weight"], *bad)


def test_a_child_that_fails_stops_the_others_and_nothing_more_is_stored(large: Office) -> None:
    """Two children at once: one talks nonsense after its first point, the other never ends."""
    dataset, model = large.dataset(), large.model()
    large.give_up()
    units = ["a.weight", "b.weight", "c.weight", "d.weight"]
    with large.store.write() as session:
        session.get_one(Dataset, dataset.id).splits = {"tune": LARGE}
        row = session.get_one(Model, model.id)
        row.units = {"weight": [a_unit(name, 100) for name in units], "channel": []}
        analyses.create(session, model_id=model.id, dataset_id=dataset.id, levels=[250_000])
    stopped, told = threading.Event(), threading.Event()

    class Two(Crew):
        def processes(self) -> int:
            return 2

    def child(arguments: Any, files: Any, folder: Path, tell: Tell) -> dict[str, Any]:
        mine = [unit for unit, _, _ in arguments["cells"]]
        tell("baseline", a_large_baseline())
        if "a.weight" in mine:
            told.wait(10)
            tell("points", {"points": [a_part("a.weight", 250_000) | {"removed": -5}]})
        tell("points", {"points": [a_part("b.weight", 250_000) | {"unit": mine[0], "removed": 25}]})
        told.set()
        for _ in range(400):
            try:
                tell("progress", {"fraction": 0.5, "seconds": 1.0})
            except Stopped:
                stopped.set()
                raise
            time.sleep(0.01)
        return {}

    large.walls.scripts["analyse"] = child
    crew = Two(large.store, large.settings, cast(Walls, large.walls))
    with pytest.raises(ChildMalformed):
        large.run(crew)
    assert stopped.is_set()
    assert large.rows() == {"baseline": 1, "point": 1}
    dealt = [{cell[0] for cell in arguments["cells"]} for _, arguments, _ in large.walls.asked[-2:]]
    assert dealt[0] | dealt[1] == set(units)
    assert not dealt[0] & dealt[1]
    assert all(arguments["threads"] == 1 for _, arguments, _ in large.walls.asked[-2:])


def test_two_children_have_to_speak_of_one_network(large: Office) -> None:
    dataset, model = large.dataset(), large.model()
    large.give_up()
    with large.store.write() as session:
        session.get_one(Dataset, dataset.id).splits = {"tune": LARGE}
        row = session.get_one(Model, model.id)
        row.units = {"weight": [a_unit(f"{name}.weight", 100) for name in "abcd"], "channel": []}
        analyses.create(session, model_id=model.id, dataset_id=dataset.id, levels=[250_000])

    class Two(Crew):
        def processes(self) -> int:
            return 2

    def child(arguments: Any, files: Any, folder: Path, tell: Tell) -> dict[str, Any]:
        said = a_large_baseline()
        if "a.weight" in [unit for unit, _, _ in arguments["cells"]]:
            swapped = np.roll(STREAM, 1)
            said |= {"members": text_of(swapped.astype(np.uint8).tobytes())}
            said |= {"outcome": bits(swapped != 0)}
        tell("baseline", said)
        return {}

    large.walls.scripts["analyse"] = child
    crew = Two(large.store, large.settings, cast(Walls, large.walls))
    with pytest.raises(ChildMalformed):
        large.run(crew)
    assert large.rows() == {"baseline": 1}
