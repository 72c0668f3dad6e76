"""An upload that crashes its reader."""

from __future__ import annotations

import pytest

from app.domain.errors import ChildFailed, ChildOutOfMemory
from tests.support.walled import Walled


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("segfault", "segmentation fault"),
        ("abort", "abort"),
        ("exit", "exit code 3"),
        ("sys.exit", "SystemExit"),
        ("exception", "RuntimeError: no such thing in file"),
        ("recursion", "RecursionError"),
        ("unsayable", "TypeError"),
    ],
)
def test_a_crash_is_said_in_words(walled: Walled, how: str, words: str) -> None:
    error = walled.error("crasher", {"how": how})
    assert type(error) is ChildFailed
    assert error.code == "crashed"
    assert words in error.message
    assert "/secret" not in error.message
    assert error.hint


def test_a_kill_from_outside_is_taken_for_the_want_of_memory(walled: Walled) -> None:
    error = walled.error("crasher", {"how": "killed"})
    assert type(error) is ChildOutOfMemory
