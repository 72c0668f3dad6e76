"""A long computation that tells what it finds, as an iterator."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_WAIT_SECONDS = 0.2


def as_iterator(work: Callable[[Callable[[T], None], Callable[[], bool]], None]) -> Iterator[T]:
    """What `work(tell, should_stop)` tells, while it goes on in a thread of its own.

    Raises what `work` raises, after everything that was told before it. When the iterator is
    closed (a `break` in its loop, Ctrl-C) `should_stop()` turns true, and the thread is waited for.
    """
    told: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
    stopping = threading.Event()
    ended: list[BaseException | None] = []

    def run() -> None:
        try:
            work(lambda item: told.put((True, item)), stopping.is_set)
        except BaseException as error:
            ended.append(error)
        else:
            ended.append(None)
        told.put((False, None))

    thread = threading.Thread(target=run, name="prunescope", daemon=True)
    thread.start()
    try:
        while True:
            try:
                # Waiting without an end could not be interrupted on every system.
                more, item = told.get(timeout=_WAIT_SECONDS)
            except queue.Empty:
                continue
            if not more:
                break
            yield item
    finally:
        stopping.set()
        thread.join()
    if ended[0] is not None:
        raise ended[0]
