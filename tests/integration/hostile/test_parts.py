"""Points of parts, whole points, and the stream that they are of."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from app.store import points, steering
from app.store.tables import (
    Analysis,
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
    a_large_baseline,
    a_part,
    a_whole,
    bits,
    parting,
    text_of,
)
from tests.integration.hostile.saying import Change, changed, put, refused
from tests.integration.office import Office

BFLOAT16 = {
    "used": "bfloat16",
    "reason": None,
    "samples": 512,
    "answers": 512,
    "differing": 2,
    "loss": 0.5,
    "loss_float32": 0.51,
}


@pytest.mark.parametrize("said", [BFLOAT16, BFLOAT16 | {"used": "float32", "reason": "Hooks."}])
def test_what_bfloat16_changes_is_stored(large: Office, said: dict[str, Any]) -> None:
    cells = [a_whole(*cell) for cell in PART_CELLS]
    large.walls.scripts["analyse"] = parting(cells, a_large_baseline() | {"arithmetic": said})
    large.run()
    with large.store.read() as session:
        assert session.scalars(select(Baseline)).one().arithmetic == said


def test_honest_parts_are_stored_with_what_follows_from_them(large: Office) -> None:
    first, second = PART_CELLS
    large.walls.scripts["analyse"] = parting(
        [a_part(*first, 32, settled=False), a_part(*first), a_whole(*second)]
    )
    large.run()
    assert large.rows() == {"baseline": 1, "point": 2}
    with large.store.read() as session:
        (key,) = set(session.scalars(select(Analysis.context)))
        part = session.get_one(Point, (key, first[0], "magnitude", first[1]))
        whole = session.get_one(Point, (key, second[0], "magnitude", second[1]))
        outcome = session.get_one(Outcome, (key, first[0], "magnitude", first[1]))
        dense = session.get_one(Outcome, (key, "", "", 0))
    assert (part.samples, part.of, whole.samples) == (SEEN, LARGE, LARGE)
    seen, lost = np.zeros(8), np.zeros(8)
    for index, stratum in enumerate(STREAM[:SEEN]):
        seen[stratum] += 1
        lost[stratum] += stratum != 0 and index % 2 == 1
    assert part.drop == pytest.approx(float((lost / seen).mean())), "strata are of equal size"
    assert part.drop_low < part.drop < part.drop_high
    assert part.accuracy == pytest.approx(0.875 - part.drop)
    assert part.loss == pytest.approx(0.5 + 0.5), "the dense network's, and what each sample adds"
    assert part.kl == pytest.approx(0.25)
    assert whole.drop == pytest.approx(0.875 - whole.accuracy)
    assert (outcome.samples, outcome.state) == (SEEN, b"a state")
    assert dense.samples == LARGE


def test_a_part_does_not_rest_on_a_childs_word(large: Office) -> None:
    """Whatever a child says of its accuracy, drop and intervals, only its counts are heard."""
    told = a_part(*PART_CELLS[0])
    told["figures"] |= {"accuracy": 0.99, "low": 0.98, "high": 1.0, "loss": -5.0, "kl": 9.0}
    honest = a_part(*PART_CELLS[0])
    stored = []
    for said in (told, honest):
        large.walls.scripts["analyse"] = parting([said, a_part(*PART_CELLS[1])])
        large.run()
        with large.store.write() as session:
            row = session.scalars(select(Point).where(Point.unit == PART_CELLS[0][0])).one()
            stored.append((row.accuracy, row.low, row.high, row.loss, row.kl, row.drop))
            points.forget_parts(session, row.context)
            job = session.scalars(select(Job).where(Job.kind == "analyse")).one()
            steering.ask_for_more(session, job.id)
    assert stored[0] == stored[1]


NOT_PARTS: list[Change] = [
    put("figures", "of", 999),
    put("figures", "samples", LARGE + 1),
    put("figures", "samples", 0),
    put("figures", "samples", 63),
    put("figures", "kind", "multi-label"),
    put("figures", "correct", None),
    put("figures", "correct", 65),
    put("figures", "lost", 65),
    put("figures", "gained", 64),
    put("figures", "flips", 1),
    put("figures", "flips", 65),
    put("figures", "flips", None),
    put("removed", 101),
    put("removed", -1),
    put("removed", 1.5),
    put("sums", None),
    put("sums", {}),
    put("sums", "n", [8.0] * 7),
    put("sums", "n", [7.5, 8.5, *[8.0] * 6]),
    put("sums", "n", [64.0, *[0.0] * 7]),
    put("sums", "n", [float("nan")] * 8),
    put("sums", "n", 0, -1.0),
    put("sums", "n", 0, 126.0),
    put("sums", "d", 1, 1e9),
    put("sums", "d2", 1, -1.0),
    put("sums", "d2", [0.0] * 8),
    put("sums", "d", [0.0] * 8),
    put("sums", "d", [0.0, -1.0, 4.0, 3.0, 5.0, 7.0, 7.0, 4.0]),
    put("sums", "l2", [0.0] * 8),
    put("sums", "k2", 3, 0.0),
    put("sums", "lost", 1),
    put("sums", "gained", 5),
    put("sums", "more", 1),
    put("settled", "yes"),
    put("settled", False),
    put("outcome", "no base64!"),
    put("outcome", base64.b64encode(b"not deflated").decode()),
    put("outcome", text_of(b"")),
    put("outcome", text_of(b"\xff" * 8)),
    put("outcome", text_of(b"\x00" * 9)),
    put("outcome", text_of(b"\x00" * 50_000_000)),
    put("outcome", bits(np.ones(SEEN, dtype=bool))),
    put("outcome", base64.b64encode(zlib.compress(b"\0" * 8)[:-3]).decode()),
    put("outcome", base64.b64encode(zlib.compress(b"\0" * 8) + b"more").decode()),
    put("by_class", {"seen": [64], "right": [64]}),
    put("by_class", {"seen": [63], "right": [28]}),
    put("by_class", {"seen": [10, 54], "right": [28]}),
    put("by_class", {"seen": [10, 54], "right": [20, 8]}),
    put("by_class", "right", [-1]),
    put("by_class", {"seen": [0] * 1001, "right": [0] * 1001}),
    put("state", "no base64!"),
    put("state", "A" * 30_000_000),
    put("remark", "x" * 10_000),
    put("remark", 7),
    put("drop", 0.1),
]


@pytest.mark.parametrize("change", NOT_PARTS)
def test_a_part_that_can_not_be_is_not_stored(large: Office, change: Change) -> None:
    bad = changed(a_part(*PART_CELLS[0]), change)
    refused(large, "analyse", parting([a_whole(*PART_CELLS[1]), bad]))
    assert large.rows() == {"baseline": 1, "point": 1}
    with large.store.read() as session:
        assert len(session.scalars(select(Outcome)).all()) == 2


@pytest.mark.parametrize(
    "change",
    [
        put("sums", a_part("a.weight", 250_000)["sums"]),
        put("settled", False),
        put("outcome", bits(np.ones(LARGE, dtype=bool))),
        put("outcome", bits(np.zeros(SEEN, dtype=bool))),
        put("by_class", {"seen": [999], "right": [438]}),
        put("figures", "correct", 439),
        put("figures", "accuracy", 0.9),
        put("figures", "lost", 400),
    ],
)
def test_a_whole_point_that_can_not_be_is_not_stored(large: Office, change: Change) -> None:
    bad = changed(a_whole(*PART_CELLS[0]), change)
    refused(large, "analyse", parting([bad]))
    assert large.rows() == {"baseline": 1}


def moved(said: Any) -> None:
    members = STREAM.astype(np.uint8)
    members[np.flatnonzero(members == 1)[0]] = 0
    said["members"] = text_of(members.tobytes())
    said["strata"]["sizes"] = [126, 124, *[125] * 6]


@pytest.mark.parametrize(
    "change",
    [
        put("samples", 999),
        put("of", 999),
        put("strata", "sizes", [125] * 7),
        put("strata", "sizes", [124, *[125] * 7]),
        put("strata", "sizes", [126, 124, *[125] * 6]),
        put("strata", "sizes", [-125, 375, *[125] * 6]),
        put("strata", "scale", -1.0),
        put("strata", "scale", float("inf")),
        put("strata", "score", "luck"),
        put("strata", "sizes", [124, 126, *[125] * 6]),
        # As many samples apart as are wrong, but others; and one more than are wrong.
        put("members", text_of(np.roll(STREAM, 1).astype(np.uint8).tobytes())),
        moved,
        put("strata", None),
        put("arithmetic", {}),
        put("arithmetic", {**BFLOAT16, "used": "int4"}),
        put("arithmetic", {**BFLOAT16, "reason": "It was too slow."}),
        put("arithmetic", {**BFLOAT16, "used": "float32"}),
        put("arithmetic", {**BFLOAT16, "samples": LARGE + 1}),
        put("arithmetic", {**BFLOAT16, "differing": 513}),
        put("arithmetic", {**BFLOAT16, "differing": -1}),
        put("arithmetic", {**BFLOAT16, "loss": float("nan")}),
        put("arithmetic", {**BFLOAT16, "more": 1}),
        put("members", text_of(b"\0" * LARGE)),
        put("members", text_of(b"\x09" * LARGE)),
        put("members", text_of(b"\0" * 50_000_000)),
        put("members", "?"),
        put("outcome", bits(np.ones(LARGE, dtype=bool))),
        put("outcome", bits(np.ones(LARGE - 8, dtype=bool))),
        put("outcome", bits(np.concatenate([STREAM != 0, STREAM > 99]))),
        put("by_class", {"seen": [600, 400], "right": [600, 300]}),
        put("by_class", {"seen": [600, 399], "right": [575, 300]}),
        put("state", "AAAA"),
    ],
)
def test_a_stream_that_can_not_be_is_not_stored(large: Office, change: Change) -> None:
    refused(large, "analyse", parting([], changed(a_large_baseline(), change)))
    assert large.rows() == {}
