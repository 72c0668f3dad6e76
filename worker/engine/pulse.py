"""A long computation's contact with whoever started it."""

from __future__ import annotations

import time
from collections.abc import Callable

from app.domain.errors import Stopped

_STOP_SECONDS = 0.1
_PROGRESS_SECONDS = 0.25


class Pulse:
    """Asks for a stop and reports progress, each at most a few times a second.

    Work is counted in any unit that is proportional to time; `total` is what there is to do.
    """

    def __init__(
        self,
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[float], None] | None = None,
        total: float = 0.0,
    ) -> None:
        self._should_stop = should_stop
        self._on_progress = on_progress
        self._total = total
        self._done = 0.0
        self._started = self._asked = self._told = time.monotonic()

    @property
    def should_stop(self) -> Callable[[], bool] | None:
        """The question itself, for a part of the work that asks it on its own."""
        return self._should_stop

    def beat(self, work: float = 0.0) -> None:
        """Count work as done. Raises Stopped when asked to stop."""
        self._done += work
        now = time.monotonic()
        if self._should_stop is not None and now - self._asked >= _STOP_SECONDS:
            self._asked = now
            self.check()
        if self._on_progress is not None and now - self._told >= _PROGRESS_SECONDS:
            self._told = now
            self._on_progress(self.fraction)

    def check(self) -> None:
        """Raises Stopped when asked to stop, without waiting for the next moment to ask."""
        if self._should_stop is not None and self._should_stop():
            raise Stopped("The computation was stopped.", "Start it again; what is known is kept.")

    def tell(self) -> None:
        """Report progress now."""
        if self._on_progress is not None:
            self._told = time.monotonic()
            self._on_progress(self.fraction)

    @property
    def fraction(self) -> float:
        """Share of the work that is done, 0 to 1."""
        return min(1.0, self._done / self._total) if self._total > 0 else 1.0

    @property
    def remaining_seconds(self) -> float | None:
        """Time left at the pace so far; None before there is a pace."""
        fraction = self.fraction
        if fraction <= 0:
            return None
        return (time.monotonic() - self._started) * (1 - fraction) / fraction
