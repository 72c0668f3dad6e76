"""Previews, which come before the dense network is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, select

from app.domain.adaptive import Sums
from app.domain.errors import ChildMalformed
from app.domain.words import JobState
from app.store.tables import (
    Baseline,
    Job,
    Outcome,
    Point,
)
from tests.integration.hostile.parts import (
    LARGE,
    PART_CELLS,
    SEEN,
    STREAM,
    a_part,
    bits,
    parting,
    scaled,
)
from tests.integration.hostile.saying import Change, changed, figures, put, refused
from tests.integration.office import Office
from tests.support.walls import Script, Tell


def a_preview(*cells: tuple[str, int], seen: int = 32) -> dict[str, Any]:
    """The first samples, drawn at random: all of them count as of stratum 0."""
    dense = STREAM[:seen] != 0
    right = dense & (np.arange(seen) % 2 == 0)
    lost = int((dense & ~right).sum())
    sums = Sums(lost=lost)
    sums.add(np.zeros(seen, dtype=np.intp), dense.astype(float) - right)
    listed = []
    for cell in cells:
        said = a_part(*cell, seen, settled=False)
        listed.append(said | {"sums": sums.as_json()})
    own = scaled(figures(30, dense=32), seen, int(dense.sum()))
    strata = {"sizes": [LARGE, *[0] * 7], "scale": 1.0, "score": "answers", "loss_scale": 1.0}
    return {
        "dense": own | {"lost": 0, "gained": 0, "flips": 0},
        "strata": strata,
        "points": listed,
    }


def previewing(preview: dict[str, Any], points: list[dict[str, Any]]) -> Script:
    def child(arguments: Any, files: Any, folder: Path, tell: Tell) -> dict[str, Any]:
        tell("preview", preview)
        return parting(points)(arguments, files, folder, tell)

    return child


def test_an_honest_preview_is_stored_and_gives_way(large: Office) -> None:
    first, second = PART_CELLS
    large.walls.scripts["analyse"] = previewing(a_preview(first, second), [])
    with pytest.raises(ChildMalformed, match="left out"):
        large.run()
    with large.store.write() as session:
        rows = session.scalars(select(Point)).all()
        assert [(row.samples, row.sums) for row in rows] == [(32, None)] * 2
        (job,) = session.scalars(select(Job).where(Job.kind == "analyse"))
        job.state, job.lease_token = JobState.QUEUED, None
        session.execute(delete(Baseline))
        session.execute(delete(Outcome))
    points_told = [a_part(*first), a_part(*second)]
    large.walls.scripts["analyse"] = previewing(a_preview(first, second), points_told)
    large.run()
    assert large.walls.asked[-1][1]["known"] == [], "a preview is nothing to go on from"
    with large.store.read() as session:
        assert {row.samples for row in session.scalars(select(Point))} == {SEEN}


@pytest.mark.parametrize(
    "change",
    [
        put("dense", "samples", 600),
        put("dense", "correct", 33),
        put("dense", "kind", "regression"),
        put("strata", "sizes", [LARGE - 1, *[0] * 7]),
        put("strata", None),
        put("points", 0, "settled", True),
        put("points", 0, "figures", "samples", 31),
        put("points", 0, "figures", "lost", 33),
        put("points", 0, "sums", None),
        put("points", 0, "outcome", bits(np.ones(32, dtype=bool))),
        put("points", 0, "unit", "c.weight"),
        put("points", 0, "sums", "n", [4.0] * 8),
        put("more", 1),
    ],
)
def test_a_preview_that_can_not_be_is_not_stored(large: Office, change: Change) -> None:
    said = changed(a_preview(*PART_CELLS), change)
    refused(large, "analyse", previewing(said, [a_part(*cell) for cell in PART_CELLS]))
    assert large.rows() == {}


def test_a_preview_comes_before_the_baseline_or_not_at_all(large: Office) -> None:
    late = ("preview", a_preview(*PART_CELLS))
    refused(large, "analyse", parting([], None, late))
    assert large.rows() == {"baseline": 1}
