"""A recipe taken over by an upload answers by itself, with what might break the worker."""

from __future__ import annotations

import time

import pytest

from app.domain.errors import ChildFailed, ChildFlooded, ChildMalformed, ChildTookTooLong
from tests.attacks.hostile.liar import FRAMES
from tests.support.walled import Walled
from worker.sandbox.walls import Limits


@pytest.mark.parametrize("how", [name for name in FRAMES if name != "announced too large"])
def test_a_message_that_is_none_ends_it(walled: Walled, how: str) -> None:
    error = walled.error("liar", {"how": how})
    assert type(error) is ChildMalformed
    assert error.code == "malformed"
    assert walled.told == []


@pytest.mark.parametrize("how", ["after the end", "two ends", "half and end"])
def test_an_answer_has_one_end(walled: Walled, how: str) -> None:
    assert type(walled.error("liar", {"how": how})) is ChildMalformed
    assert walled.told == []


def test_a_message_announced_too_large_is_not_waited_for(walled: Walled) -> None:
    started = time.monotonic()
    assert type(walled.error("liar", {"how": "announced too large"})) is ChildFlooded
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("how", ["half", "closed"])
def test_a_child_that_says_no_more_is_not_waited_for_beyond_its_time(
    walled: Walled, how: str
) -> None:
    error = walled.error("liar", {"how": how}, limits=Limits(seconds=0.5))
    assert type(error) is ChildTookTooLong


def test_a_child_that_says_nothing_at_all(walled: Walled) -> None:
    error = walled.error("liar", {"how": "silent"})
    assert type(error) is ChildFailed
    assert "without an answer" in error.message
