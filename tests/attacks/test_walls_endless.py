"""An upload that computes for ever and can't be asked to stop."""

from __future__ import annotations

import time

import pytest

from app.domain.errors import ChildTookTooLong, Stopped
from tests.support.walled import Walled
from worker.sandbox.walls import Limits

WAYS = ["python", "asleep", "threads"]


@pytest.mark.parametrize("how", WAYS)
def test_its_time_is_up(walled: Walled, how: str) -> None:
    started = time.monotonic()
    error = walled.error("endless", {"how": how}, limits=Limits(seconds=0.5))
    assert time.monotonic() - started < 5
    assert type(error) is ChildTookTooLong
    assert error.code == "took-too-long"
    assert "0.5 s" in error.message


@pytest.mark.parametrize("how", WAYS)
def test_a_stop_ends_it_within_half_a_second(walled: Walled, how: str) -> None:
    asked: list[float] = []
    with pytest.raises(Stopped):
        walled.run(
            "endless",
            {"how": how},
            on_message=lambda *_: asked.append(time.monotonic()),
            should_stop=lambda: bool(asked),
        )
    assert time.monotonic() - asked[0] < 0.5
