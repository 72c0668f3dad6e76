"""A real SQLite file and a real blob folder for every test, and a clock that can be moved."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.store.blobs import Blobs
from app.store.store import Store
from tests.integration.store.things import Things


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2030, 1, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def forward(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'data' / 'prunescope.db'}"


@pytest.fixture
def store(url: str, clock: HandClock) -> Iterator[Store]:
    opened = Store.open(url, clock=clock)
    opened.migrate()
    yield opened
    opened.dispose()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    data_dir = tmp_path / "data"
    return Blobs((data_dir / "blobs").as_uri(), data_dir)


@pytest.fixture
def things(store: Store, blobs: Blobs) -> Things:
    return Things(store, blobs)
