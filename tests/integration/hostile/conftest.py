"""An office whose children say what a test has them say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.store import analyses
from app.store.tables import Dataset
from tests.integration.hostile.parts import LARGE
from tests.integration.office import Office


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    opened = Office(tmp_path / "data")
    yield opened
    opened.store.dispose()


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
