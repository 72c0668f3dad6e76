"""The contract tests' server serves the attacks as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.site import Site, running


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("attacks") / "data") as started:
        yield started
