"""A recipe taken over by an upload runs a program."""

from __future__ import annotations

import pytest

from tests.support.walled import Walled


def test_no_program_runs(walled: Walled) -> None:
    if not walled.calls_are_walled:
        pytest.skip("no system call filter on this machine")
    assert walled.value("runner") == {"done": [], "proof": False}
