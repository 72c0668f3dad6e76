"""Canaries, and the servers that are attacked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.kit import Canary
from tests.contract.site import Site, running
from tests.support.live import LiveServer, live_server
from tests.support.walled import shared_walls, walled

__all__ = ["shared_walls", "walled"]


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    """Has to be alive when the test ends, whatever was proven on the way."""
    made = Canary(tmp_path / "dead")
    yield made
    assert made.alive, "a payload ran"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The web server alone; the tests stand in for the worker."""
    with running(tmp_path_factory.mktemp("attacks") / "data") as started:
        yield started


@pytest.fixture(scope="session")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A whole installation with one worker, which has to outlive all attacks over HTTP."""
    with live_server(tmp_path_factory.mktemp("victim") / "data") as started:
        yield started
