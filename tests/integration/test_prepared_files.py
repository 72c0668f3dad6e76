"""What an import unpacked is only a copy: wherever it is missing, it is made again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from app.domain.cells import dataset_key
from app.domain.words import Status
from app.store.tables import Dataset, Model, Point
from tests.integration.office import Office
from tests.support.sample import Sample


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    opened = Office(tmp_path / "data")
    yield opened
    opened.store.dispose()


def imported(office: Office, sample: Sample, folder: Path) -> tuple[Model, Dataset, Path]:
    """The sample, its data packed; and where the unpacked copy belongs."""
    np.savez_compressed(folder / "packed.npz", **sample.arrays)
    model = office.things.importing_model(sample.model_path.read_bytes())
    dataset = office.things.importing_dataset((folder / "packed.npz").read_bytes())
    office.run()
    office.run()
    with office.store.read() as session:
        model = session.get_one(Model, model.id)
        dataset = session.get_one(Dataset, dataset.id)
    assert (model.status, dataset.status) == (Status.READY, Status.READY)
    key = dataset_key(dataset.sha256, dataset.task, dataset.options)
    return model, dataset, office.settings.data_dir / "work" / "datasets" / key / "prepared"


def recipes(office: Office) -> list[str]:
    names = [recipe for recipe, _, _ in office.walls.asked]
    office.walls.asked.clear()
    return names


def figures(office: Office) -> list[tuple]:
    with office.store.read() as session:
        found = session.scalars(select(Point).order_by(Point.unit, Point.level)).all()
        return [(row.unit, row.level, row.correct, row.loss) for row in found]


def test_a_packed_data_set_is_unpacked_once(office: Office, sample: Sample, tmp_path: Path) -> None:
    model, dataset, place = imported(office, sample, tmp_path)
    assert (dataset.details or {})["prepared"] is True
    before = place.stat()
    office.things.analysis(model, dataset)
    recipes(office)
    office.run()
    assert office.walls.asked[-1][2]["prepared"] == place
    assert recipes(office) == ["analyse"]
    assert (place.stat().st_ino, place.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_it_is_unpacked_again_where_it_is_missing(
    office: Office, sample: Sample, tmp_path: Path
) -> None:
    model, dataset, place = imported(office, sample, tmp_path)
    unpacked = place.read_bytes()
    office.things.analysis(model, dataset)
    office.run()
    first = figures(office)
    shutil.rmtree(place.parent)
    office.things.analysis(model, dataset, levels=[250_000, 500_000, 750_000])
    recipes(office)
    office.run()
    assert recipes(office) == ["import_dataset", "analyse"]
    assert place.read_bytes() == unpacked
    assert len(figures(office)) == len(first) // 2 * 3
    assert set(first) <= set(figures(office))


def test_a_data_set_read_as_it_lies_needs_no_copy(office: Office, sample: Sample) -> None:
    model = office.things.importing_model(sample.model_path.read_bytes())
    dataset = office.things.importing_dataset(sample.dataset_path.read_bytes())
    office.run()
    office.run()
    office.things.analysis(model, dataset)
    office.run()
    assert "prepared" not in office.walls.asked[-1][2]
    assert not list((office.settings.data_dir / "work").rglob("prepared"))
