"""Several computations side by side: all of them, or the first reason why not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from app.domain.errors import ChildFailed, Stopped
from worker.analyse_children import together

Stop = Callable[[], bool]


def test_all_run_at_once() -> None:
    met = threading.Barrier(3, timeout=20)
    together([lambda _: met.wait() and None] * 3)


def test_the_first_failure_stops_the_others_and_is_the_one_raised() -> None:
    ended = []

    def patient(should_stop: Stop) -> None:
        until = time.monotonic() + 20
        while not should_stop() and time.monotonic() < until:
            time.sleep(0.01)
        ended.append(should_stop())
        raise Stopped("stopped by the other")

    def failing(_: Stop) -> None:
        raise ChildFailed("the cause")

    with pytest.raises(ChildFailed, match="the cause"):
        together([patient, failing, patient])
    assert ended == [True, True]
    assert not [t for t in threading.enumerate() if t.name.startswith("Thread-") and t.is_alive()]
