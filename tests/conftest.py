"""What the suites share: one trained sample, and real servers."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.live import LiveServer, live_server


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory):
    from tests.support.sample import make_sample

    return make_sample(tmp_path_factory.mktemp("sample"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    """A fresh installation with one worker."""
    with live_server(tmp_path / "data") as started:
        yield started


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One installation for a whole file of tests that don't mind each other."""
    with live_server(tmp_path_factory.mktemp("live") / "data") as started:
        yield started


# How long an example takes says more about what else the machine does.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
