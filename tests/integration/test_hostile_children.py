"""A child that reads uploads may be an upload's puppet: whatever it says, nothing false is stored.

Each test has a child that says the right thing, which is stored, and the same child with one thing
wrong, of which nothing is.
"""

from __future__ import annotations

import base64
import copy
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from sqlalchemy import delete, select

from app.domain.adaptive import Sums
from app.domain.errors import ChildMalformed, InvalidInput, Stopped, TooLarge
from app.domain.metrics import METRICS, Kind
from app.domain.statistics import wilson
from app.domain.words import JobState, Status
from app.store import analyses, points, steering
from app.store.tables import (
    Analysis,
    Baseline,
    Dataset,
    Experiment,
    Job,
    Model,
    Outcome,
    Point,
    Run,
)
from tests.integration.office import SAMPLES, SIZES, Office, a_unit
from tests.support.walls import Script, Tell
from worker.crew import Crew
from worker.sandbox.walls import Walls

Change = Callable[[Any], object]


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    opened = Office(tmp_path / "data")
    yield opened
    opened.store.dispose()


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


# Imports of models.


def a_network() -> dict[str, Any]:
    return {
        "format": "pt2",
        "details": {"kind": "network", "notes": ["It was exported with a fixed batch."]},
        "derived": False,
        "layers": [
            {"path": "a", "type": "Linear", "parameters": 110, "macs": 100, "output_shape": [None]}
        ],
        "units": [*(a_unit(*each) for each in SIZES.items()), a_unit("a.bias", 10, False)],
        "inputs": [{"name": "x", "shape": [None, 10], "dtype": "float32"}],
        "parameters": 130,
        "macs": 100,
        "state_bytes": 520,
        "fixed_batch": None,
    }


def deep(levels: int) -> Any:
    nested: Any = []
    for _ in range(levels):
        nested = [nested]
    return nested


def test_an_honest_network_is_stored(office: Office) -> None:
    model = office.things.importing_model()
    office.walls.scripts["import_model"] = lambda *_: a_network()
    office.run()
    with office.store.read() as session:
        row = session.get_one(Model, model.id)
    assert row.status == Status.READY
    assert [unit["id"] for unit in row.units["weight"]] == [*SIZES, "a.bias"]
    assert row.details == a_network()["details"]


def a_look() -> dict[str, Any]:
    return {
        "format": "safetensors",
        "details": {
            "kind": "weights",
            "notes": [],
            "key_prefix": "module.",
            "nested_under": None,
            "weights": [
                {
                    "key": "a.weight",
                    "also": [],
                    "shape": [2, 3],
                    "dtype": "float32",
                    "numel": 6,
                    "zeros": 1,
                    "nan": 0,
                    "inf": 0,
                    "min": -1.0,
                    "max": 1.0,
                    "mean": 0.1,
                    "std": 0.5,
                    "thresholds": {"50": 0.2, "90": None},
                    "histogram": {"low": -1.0, "high": 1.0, "counts": [3, 3]},
                }
            ],
            "totals": {"tensors": 1, "numel": 6, "bytes": 24},
        },
        "derived": False,
        "layers": [],
        "units": [],
        "inputs": [],
        "parameters": 6,
        "macs": None,
        "state_bytes": 24,
        "fixed_batch": None,
    }


def test_an_honest_look_at_weights_is_stored(office: Office) -> None:
    model = office.things.importing_model()
    office.walls.scripts["import_model"] = lambda *_: a_look()
    office.run()
    with office.store.read() as session:
        row = session.get_one(Model, model.id)
    assert (row.status, row.parameters, row.state_bytes) == (Status.READY, 6, 24)
    assert row.details == a_look()["details"]


@pytest.mark.parametrize(
    "change",
    [
        put("derived", True),
        put("units", [a_unit("a.weight", 100)]),
        put("details", "weights", 0, "max", float("inf")),
        put("details", "weights", 0, "max", "<script>"),
        put("details", "weights", 0, "numel", -6),
        put("details", "weights", 0, "histogram", "counts", [-1]),
        put("details", "weights", 0, "thresholds", {"50": "half"}),
        put("details", "weights", 0, "more", 1),
        put("details", "weights", "all"),
        put("details", "totals", {"numel": -1}),
    ],
)
def test_a_look_that_can_not_be_is_not_stored(office: Office, change: Change) -> None:
    model = office.things.importing_model()
    said = changed(a_look(), change)
    refused(office, "import_model", lambda *_: said)
    with office.store.read() as session:
        row = session.get_one(Model, model.id)
    assert (row.status, row.details, row.parameters) == (Status.IMPORTING, None, None)


def test_weights_without_a_network_are_not_analysed(office: Office) -> None:
    analysis = office.analysis()
    with office.store.write() as session:
        row = session.get_one(Model, analysis.model_id)
        row.details = {"kind": "weights", "notes": []}
    with pytest.raises(InvalidInput, match="weights only"):
        office.run()
    assert office.walls.asked == []


@pytest.mark.parametrize(
    "change",
    [
        put("format", "../../etc"),
        put("format", ""),
        put("parameters", 131),
        put("parameters", None),
        put("macs", -5),
        put("state_bytes", None),
        put("state_bytes", 1 << 70),
        put("fixed_batch", 0),
        put("layers", 0, "path", "x" * 2000),
        put("layers", 0, "parameters", -1),
        put("layers", 0, "output_shape", [1] * 100),
        put("units", 0, "size", 1000),
        put("units", 0, "id", "b.weight"),
        put("units", 0, "members", []),
        put("units", 0, "members", ["other"]),
        put("units", 0, "itemsize", 0),
        put("units", 0, "prunable", "yes"),
        put("units", 0, "shape", [-10, -10]),
        put("details", {}),
        put("details", {"kind": "virus"}),
        put("details", {"kind": "weights"}),
        put("details", {"kind": "network", "notes": "all of it"}),
        put("details", {"kind": "network", "notes": [1]}),
        put("details", {"kind": "network", "key_prefix": 7}),
        put("details", {"kind": "network", "more": "x" * 10_000}),
        put("details", {"kind": "network", "more": deep(20)}),
        put("details", {"kind": "network", "more": [0] * 600_000}),
        put("surprise", 1),
        drop("inputs"),
    ],
)
def test_a_network_that_can_not_be_is_not_stored(office: Office, change: Change) -> None:
    model = office.things.importing_model()
    said = changed(a_network(), change)
    refused(office, "import_model", lambda *_: said)
    with office.store.read() as session:
        row = session.get_one(Model, model.id)
    assert (row.status, row.units, row.details) == (Status.IMPORTING, None, None)


def test_an_import_that_talks_before_its_end_is_refused(office: Office) -> None:
    office.things.importing_model()

    def talks(arguments: Any, files: Any, folder: Path, tell: Tell) -> dict[str, Any]:
        tell("progress", {"fraction": 0.5, "seconds": None})
        return a_network()

    refused(office, "import_model", talks)


def test_the_network_made_of_weights_is_kept_with_its_model(office: Office) -> None:
    model = office.things.importing_model()
    before = office.stored_blobs()

    def derives(arguments: Any, files: Any, folder: Path, tell: Tell) -> dict[str, Any]:
        (folder / "derived.pt2").write_bytes(b"a network")
        return a_network() | {"derived": True}

    office.walls.scripts["import_model"] = derives
    office.run()
    with office.store.read() as session:
        row = session.get_one(Model, model.id)
    assert row.derived_sha256 is not None
    assert office.blobs.local_path(row.derived_sha256).read_bytes() == b"a network"
    assert office.stored_blobs() == before | {row.derived_sha256}


@pytest.mark.parametrize("how", ["absent", "link", "folder", "pipe"])
def test_a_file_that_is_none_is_not_taken(office: Office, tmp_path: Path, how: str) -> None:
    office.things.importing_model()
    before = office.stored_blobs()
    secret = tmp_path / "secret"
    secret.write_text("of the server's user")

    def derives(arguments: Any, files: Any, folder: Path, tell: Tell) -> dict[str, Any]:
        made = folder / "derived.pt2"
        if how == "link":
            made.symlink_to(secret)
        elif how == "folder":
            made.mkdir()
        elif how == "pipe":
            import os

            os.mkfifo(made)
        return a_network() | {"derived": True}

    refused(office, "import_model", derives)
    assert office.stored_blobs() == before


# Imports of data sets.


def a_data_set() -> dict[str, Any]:
    return {
        "task": "classification",
        "format": "npz",
        "splits": {"train": 60, "tune": 40},
        "input_shape": [10],
        "input_shapes": [[10]],
        "inputs": 1,
        "dtype": "float32",
        "dtypes": ["float32"],
        "transformed": [False],
        "classes": 4,
        "counts": {"train": [15] * 4, "tune": [10] * 4},
        "notes": [],
        "label_shape": [],
        "label_dtype": "int64",
        "class_names": [],
        "feature_names": [],
        "options": {},
        "prepared": False,
    }


def test_an_honest_data_set_is_stored(office: Office) -> None:
    dataset = office.things.importing_dataset()
    office.walls.scripts["import_dataset"] = lambda *_: a_data_set()
    office.run()
    with office.store.read() as session:
        row = session.get_one(Dataset, dataset.id)
    assert (row.status, row.splits, row.classes) == (Status.READY, {"train": 60, "tune": 40}, 4)


@pytest.mark.parametrize(
    "change",
    [
        put("task", "regression"),
        put("format", "n p z"),
        put("splits", {}),
        put("splits", {"tune": 0}),
        put("splits", {"tune": -4}),
        put("splits", {"secret": 4}),
        put("splits", "tune", 1 << 40),
        put("input_shape", [11]),
        put("input_shapes", []),
        put("inputs", 0),
        put("dtypes", []),
        put("classes", -1),
        put("counts", {"test": [1]}),
        put("counts", "tune", [-1]),
        put("notes", ["x" * 10_000]),
        put("class_names", ["x" * 10_000]),
        put("class_names", [3]),
        put("options", {"a": deep(20)}),
        put("prepared", 1),
        put("prepared", True),
        put("more", 1),
        drop("label_shape"),
    ],
)
def test_a_data_set_that_can_not_be_is_not_stored(office: Office, change: Change) -> None:
    dataset = office.things.importing_dataset()
    said = changed(a_data_set(), change)
    refused(office, "import_dataset", lambda *_: said)
    with office.store.read() as session:
        row = session.get_one(Dataset, dataset.id)
    assert (row.status, row.splits, row.details) == (Status.IMPORTING, None, None)


# Analyses.

DENSE, PRUNED = 32, 30


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


# Points of parts.

LARGE = 1000
STREAM = np.random.default_rng(1).permutation(np.repeat(np.arange(8), 125))
"""The stratum of each sample of the stream; the dense network is wrong on stratum 0."""
SEEN = 64
PART_CELLS = [(unit, 250_000) for unit in SIZES]


@pytest.fixture
def large(office: Office) -> Office:
    """An office with an adaptive analysis of two cells on a split of a thousand samples."""
    dataset = office.dataset()
    with office.store.write() as session:
        session.get_one(Dataset, dataset.id).splits = {"train": 10, "tune": LARGE}
    model = office.model()
    with office.store.write() as session:
        analyses.create(session, model_id=model.id, dataset_id=dataset.id, levels=[250_000])
    return office


def text_of(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def bits(right: np.ndarray) -> str:
    return text_of(np.packbits(right).tobytes())


def a_large_baseline() -> dict[str, Any]:
    right = STREAM != 0
    said = scaled(figures(32, dense=32), LARGE, int(right.sum()))
    return said | {
        "lost": 0,
        "gained": 0,
        "flips": 0,
        "kl": None,
        "of": LARGE,
        "strata": {
            "sizes": [125] * 8,
            "scale": 1.0,
            "score": "answers",
            "loss_scale": 1.0,
            "apart": True,
        },
        "members": text_of(STREAM.astype(np.uint8).tobytes()),
        "outcome": bits(right),
        "by_class": {"seen": [600, 400], "right": [int(right.sum()) - 300, 300]},
    }


def scaled(said: dict[str, Any], samples: int, correct: int) -> dict[str, Any]:
    """The same figures of so many samples."""
    interval = wilson(correct, samples)
    accuracy = {"value": correct / samples, "low": interval.low, "high": interval.high}
    return said | {
        "samples": samples,
        "correct": correct,
        "accuracy": accuracy["value"],
        "low": interval.low,
        "high": interval.high,
        "metrics": said["metrics"] | {"accuracy": accuracy},
    }


def a_part(unit: str, level: int, seen: int = SEEN, *, settled: bool = True) -> dict[str, Any]:
    """An honest point of the first samples, half of whose right answers are lost."""
    members = STREAM[:seen]
    dense = members != 0
    right = dense & (np.arange(seen) % 2 == 0)
    lost = int((dense & ~right).sum())
    sums = Sums(lost=lost)
    sums.add(members, dense.astype(float) - right, np.full(seen, 0.5), np.full(seen, 0.25))
    said = scaled(figures(30, dense=32), seen, int(right.sum()))
    return {
        "unit": unit,
        "criterion": "magnitude",
        "level": level,
        "removed": round(level / 1e6 * SIZES[unit]),
        "figures": said | {"lost": lost, "gained": 0, "flips": lost, "of": LARGE, "kl": 0.25},
        "sums": sums.as_json(),
        "settled": settled,
        "outcome": bits(right) if settled else None,
        "by_class": {"seen": [seen], "right": [int(right.sum())]} if settled else None,
        "state": base64.b64encode(b"a state").decode() if settled else None,
        "remark": None,
    }


def a_whole(unit: str, level: int) -> dict[str, Any]:
    return a_part(unit, level, LARGE) | {"sums": None, "state": None}


def parting(
    points: list[dict[str, Any]], baseline: dict[str, Any] | None = None, *more: tuple[str, Any]
) -> Script:
    def child(arguments: Any, files: Any, folder: Path, tell: Tell) -> dict[str, Any]:
        tell("baseline", a_large_baseline() if baseline is None else baseline)
        tell("progress", {"fraction": 0.25, "seconds": 3.0, "samples": 128})
        for point in points:
            tell("points", {"points": [point]})
        for kind, body in more:
            tell(kind, body)
        return {}

    return child


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
        put("strata", None),
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


# Measurements.


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


# Experiments.


class Trainer:
    """A child that retrains. `change` alters one message, by kind and number."""

    def __init__(self, kind: str = "", number: int = 0, change: Change | None = None) -> None:
        self.kind, self.number, self.change = kind, number, change
        self.epochs = (0, 1, 2)
        self.seen_state: list[bytes | None] = []

    def __call__(self, arguments: Any, files: Any, folder: Path, tell: Tell) -> dict[str, Any]:
        counts: dict[str, int] = {}

        def say(kind: str, body: dict[str, Any]) -> dict[str, Any]:
            number = counts.setdefault(kind, 0)
            counts[kind] += 1
            if (kind, number) == (self.kind, self.number) and self.change is not None:
                self.change(body)
            return body

        self.seen_state.append(files["state"].read_bytes() if "state" in files else None)
        final = arguments["splits"]["final"]
        if arguments["dense"]:
            tell("dense", say("dense", {"figures": figures(45, final), "latency_ms": 1.0}))
        removed = {"b.weight": 10, "a.weight": 25}
        tell("pruned", say("pruned", {"removed": removed, "figures": figures(20, final)}))
        for epoch in self.epochs:
            name = f"epoch-{epoch}.safetensors"
            (folder / name).write_bytes(b"state %d" % epoch)
            body = {
                "step": 0,
                "epoch": epoch,
                "train_loss": 0.5 if epoch else None,
                "learning_rate": 0.1,
                "tune": figures(20 + epoch),
                "file": name,
            }
            tell("epoch", say("epoch", body))
        (folder / "best.safetensors").write_bytes(b"weights")
        return say("value", {"best_epoch": 2, "figures": figures(40, final), "latency_ms": 1.0})


def test_an_honest_retraining_is_stored(office: Office) -> None:
    experiment = office.experiment(baselines=("uniform",))
    trainer = office.walls.scripts["retrain"] = Trainer()
    office.run()
    assert office.rows() == {"run": 2, "epoch": 6}
    assert trainer.seen_state == [None, None]
    with office.store.read() as session:
        row = session.get_one(Experiment, experiment.id)
        run = session.get_one(Run, 1)
    assert row.baseline["accuracy"] == 0.9
    assert run.sparsities == {"b.weight": 0.5, "a.weight": 0.25}
    assert (run.after["accuracy"], run.best_epoch) == (0.8, 2)
    assert run.after["sparsity"] == 35 / 120
    assert office.blobs.local_path(run.checkpoint_sha256).read_bytes() == b"weights"
    left = [path for path in (office.settings.data_dir / "work").rglob("*") if path.is_file()]
    assert left == []


@pytest.mark.parametrize(
    ("kind", "number", "change", "rows"),
    [
        *(("dense", 0, put("figures", *([key, value])), {}) for key, value in (
            ("samples", 51), ("accuracy", 0.1), ("correct", 60), ("loss", float("nan")))),
        ("dense", 0, put("latency_ms", -1.0), {}),
        ("dense", 0, put("latency_ms", float("inf")), {}),
        ("pruned", 0, put("removed", {"a.weight": 35}), {}),
        ("pruned", 0, put("removed", {"a.bias": 10, "a.weight": 25}), {}),
        ("pruned", 0, put("removed", {"b.weight": 10}), {}),
        ("pruned", 0, put("removed", {"b.weight": -10, "a.weight": 45}), {}),
        ("pruned", 0, put("figures", "correct", 51), {}),
        ("epoch", 0, put("epoch", 1), {"run": 1}),
        ("epoch", 0, put("train_loss", 0.5), {"run": 1}),
        ("epoch", 1, put("epoch", 0), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("epoch", 7), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("step", 3), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("train_loss", None), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("learning_rate", float("nan")), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("tune", "samples", 50), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("file", "../../../prunescope.db"), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("file", ".."), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("file", "nothing"), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("file", 3), {"run": 1, "epoch": 1}),
        ("value", 0, put("best_epoch", 3), {"run": 1, "epoch": 3}),
        ("value", 0, put("best_epoch", -1), {"run": 1, "epoch": 3}),
        ("value", 0, put("figures", "correct", 12), {"run": 1, "epoch": 3}),
        ("value", 0, put("latency_ms", None), {"run": 1, "epoch": 3}),
    ],
)  # fmt: skip
def test_a_retraining_that_can_not_be_is_not_stored(
    office: Office, kind: str, number: int, change: Change, rows: dict[str, int]
) -> None:
    experiment = office.experiment()
    before = office.stored_blobs()
    refused(office, "retrain", Trainer(kind, number, change))
    assert office.rows() == rows
    assert office.stored_blobs() == before
    with office.store.read() as session:
        runs = [run for run in [session.get(Run, 1)] if run is not None]
        baseline = session.get_one(Experiment, experiment.id).baseline
    assert all(run.after is None and run.checkpoint_sha256 is None for run in runs)
    assert (baseline is None) == (kind == "dense")


@pytest.mark.parametrize("epochs", [(0, 1), (0, 1, 2, 3), (0, 2), (1, 2), (0, 0, 1, 2), ()])
def test_epochs_come_one_after_the_other(office: Office, epochs: tuple[int, ...]) -> None:
    office.experiment(epochs=2)
    trainer = Trainer()
    trainer.epochs = epochs
    refused(office, "retrain", trainer)


def test_a_state_is_fetched_before_its_epoch_is_told(office: Office) -> None:
    """What an attempt finds is never older than what somebody was shown."""
    experiment = office.experiment()
    saved = office.settings.data_dir / "work" / "experiments" / str(experiment.id)
    refused(office, "retrain", Trainer("epoch", 2, put("tune", "samples", 7)))
    assert office.rows()["epoch"] == 2
    assert (saved / "plan.safetensors").read_bytes() == b"state 1"


def test_a_state_without_end_is_not_taken(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.tasks.uploads.disk_bytes", lambda folder: 3)
    office.experiment()
    office.walls.scripts["retrain"] = Trainer()
    with pytest.raises(TooLarge):
        office.run()
    assert office.rows() == {"run": 1}
