"""What a task is given: its job's lease, store, blobs and walls, and a way to hear a stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.domain.errors import Stopped
from app.settings import Settings
from app.store import queue
from app.store.blobs import Blobs
from app.store.queue import Lease
from app.store.store import Store
from worker.crew import Crew
from worker.sandbox.running import OnMessage
from worker.sandbox.walls import Limits, Result, Walls

PROGRESS_INTERVAL_SECONDS = 0.5


@dataclass
class JobContext:
    """One job in the hands of one worker. Writes go through `write()`, fenced by the lease."""

    store: Store
    blobs: Blobs
    settings: Settings
    walls: Walls
    lease: Lease
    stop: threading.Event = field(default_factory=threading.Event)
    crew: Crew | None = None
    _progress_written: float = 0.0

    @property
    def payload(self) -> dict[str, Any]:
        return self.lease.payload

    def should_stop(self) -> bool:
        return self.stop.is_set()

    def check(self) -> None:
        """Raises Stopped when the job was cancelled, lost, or the worker is shutting down."""
        if self.stop.is_set():
            raise Stopped("The job was asked to stop.")

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that commits only while the lease is still ours. Raises LeaseLost."""
        with queue.fenced(self.store, self.lease) as session:
            yield session

    def progress(
        self, done: float, total: float, eta_seconds: float | None, samples: int | None = None
    ) -> None:
        """Report progress, at most every half second so that the database stays quiet."""
        now = time.monotonic()
        if now - self._progress_written < PROGRESS_INTERVAL_SECONDS and done < total:
            return
        self._progress_written = now
        with self.write() as session:
            queue.progress(session, self.lease, done, total, eta_seconds, samples)

    def inside(
        self,
        recipe: str,
        arguments: Mapping[str, Any],
        files: Mapping[str, Path],
        on_message: OnMessage,
        *,
        limits: Limits | None = None,
        walls: Walls | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Result:
        """Run a recipe of `worker.inside` in a child behind walls; use the result in a `with`.

        `walls`: others than the job's own, for a child beside another. Raises Stopped, what the
        recipe or `on_message` raised, or ChildFailed. No child is left.
        """
        return (walls or self.walls).run(
            recipe,
            arguments,
            files,
            on_message=on_message,
            should_stop=should_stop or self.should_stop,
            limits=limits,
        )

    def scratch(self, *parts: str) -> Path:
        """A folder that outlives the job's attempts, so that a later attempt can go on from it."""
        path = self.settings.data_dir.joinpath("work", *parts)
        path.mkdir(parents=True, exist_ok=True)
        return path
