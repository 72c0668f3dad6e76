"""An upload that takes memory without end."""

from __future__ import annotations

import pytest

from app.domain.errors import ChildOutOfMemory
from tests.support.walled import Walled
from worker.sandbox.walls import Limits

LIMIT = 1 << 30


@pytest.mark.parametrize("how", ["bytes", "torch", "malloc", "private"])
def test_its_memory_ends(walled: Walled, how: str) -> None:
    error = walled.error("glutton", {"how": how}, limits=Limits(seconds=60, memory_bytes=LIMIT))
    if how == "malloc":  # It aborts where it gets nothing, and so looks like any abort.
        assert error.code == "crashed"
    else:
        assert type(error) is ChildOutOfMemory
        assert error.code == "out-of-memory"
        assert "memory" in error.message
    assert walled.told[-1][1]["bytes"] <= LIMIT


@pytest.mark.parametrize("how", ["shared", "memfd"])
def test_memory_that_would_not_count_can_not_be_had(walled: Walled, how: str) -> None:
    """Shared mappings are no part of a process's data; they are refused from the first."""
    if not walled.calls_are_walled:
        pytest.skip("no system call filter on this machine")
    walled.error("glutton", {"how": how}, limits=Limits(seconds=60, memory_bytes=LIMIT))
    assert walled.told == []
