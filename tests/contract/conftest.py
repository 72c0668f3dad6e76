from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.site import Site, running


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A fresh, empty server."""
    with running(tmp_path / "data") as started:
        yield started
