"""Start and end of the web process.

uvicorn waits for open responses before it tells the application that it stops, and an event stream
never ends by itself. So the signals are heard here as well, and the streams end at once.
"""

from __future__ import annotations

import gc
import signal
import threading
from asyncio import AbstractEventLoop, Event, get_running_loop
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

from fastapi import FastAPI

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GARBAGE_THRESHOLDS = (50_000, 20, 100)
"""An answer of ten thousand points is half a million new objects, none of them garbage; by Python's
own thresholds looking for some takes longer than the rest of the answer."""


@contextmanager
def closing_on_signals(loop: AbstractEventLoop, closing: Event) -> Iterator[None]:
    """Set `closing` on a stop signal, then do what was done before. For the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {}

    def hear(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(closing.set)
        previous = before[signal.Signals(number)]
        if callable(previous):
            previous(number, frame)
        elif previous == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in SIGNALS:
        before[number] = signal.signal(number, hear)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def lifespan(
    closing: Event, start: Callable[[], None], stop: Callable[[], None]
) -> Callable[[FastAPI], Any]:
    """`start` and `stop` belong to whatever runs beside the requests."""

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        with closing_on_signals(get_running_loop(), closing):
            before = gc.get_threshold()
            gc.set_threshold(*GARBAGE_THRESHOLDS)
            start()
            try:
                yield
            finally:
                gc.set_threshold(*before)
                closing.set()
                stop()

    return run
