"""Imports of data sets."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.words import Status
from app.store.tables import (
    Dataset,
)
from tests.integration.hostile.saying import Change, changed, deep, drop, put, refused
from tests.integration.office import Office


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
