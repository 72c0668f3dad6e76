"""A computation in a thread, as an iterator: in order, to its end, and stopped when left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from worker.engine.background import as_iterator


def test_everything_comes_in_order() -> None:
    def work(tell: Callable[[int], None], _: Callable[[], bool]) -> None:
        for number in range(100):
            tell(number)

    assert list(as_iterator(work)) == list(range(100))


def test_what_it_raises_comes_after_what_it_told() -> None:
    def work(tell: Callable[[int], None], _: Callable[[], bool]) -> None:
        tell(1)
        raise ValueError("the end")

    items = as_iterator(work)
    assert next(items) == 1
    with pytest.raises(ValueError, match="the end"):
        next(items)


def test_leaving_the_loop_stops_it_and_waits() -> None:
    ended = threading.Event()

    def work(tell: Callable[[int], None], should_stop: Callable[[], bool]) -> None:
        tell(1)
        until = time.monotonic() + 20
        while not should_stop() and time.monotonic() < until:
            time.sleep(0.01)
        assert should_stop()
        ended.set()

    items = as_iterator(work)
    for _ in items:
        break
    items.close()
    assert ended.is_set()


def test_items_come_while_it_goes_on() -> None:
    heard = threading.Event()

    def work(tell: Callable[[int], None], _: Callable[[], bool]) -> None:
        tell(1)
        assert heard.wait(20)
        tell(2)

    items = as_iterator(work)
    assert next(items) == 1
    heard.set()
    assert list(items) == [2]
