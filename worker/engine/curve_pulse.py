"""Progress of curves, whose cells take as many samples as they turn out to need."""

from __future__ import annotations

import time
from collections.abc import Callable

from worker.engine.pulse import Pulse


class CurvePulse(Pulse):
    """Progress by the work that cells are expected to take, which changes as they are measured."""

    def __init__(
        self,
        should_stop: Callable[[], bool] | None,
        on_progress: Callable[[float], None] | None,
        work: Callable[[], tuple[float, float]],
    ) -> None:
        super().__init__(should_stop, on_progress)
        self._work = work
        self._began: tuple[float, float] | None = None

    @property
    def fraction(self) -> float:
        done, left = self._work()
        return done / (done + left) if done + left > 0 else 0.0

    @property
    def remaining_seconds(self) -> float | None:
        done, left = self._work()
        now = time.monotonic()
        if self._began is None and done > 0:
            self._began = (now, done)
        if self._began is None or done <= self._began[1]:
            return None
        return (now - self._began[0]) * left / (done - self._began[1])
