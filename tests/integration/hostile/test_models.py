"""Imports of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import InvalidInput
from app.domain.words import Status
from app.store.tables import (
    Model,
)
from tests.integration.hostile.saying import Change, changed, deep, drop, put, refused
from tests.integration.office import SIZES, Office, a_unit
from tests.support.walls import Tell


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
