"""Streams of events: numbered without gaps within a topic, read again from any number on.

The number is taken under the topic's row lock, so a reader that has seen n has seen all before n;
one global sequence would lose rows for good on PostgreSQL, where a lower number can commit later.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.store import dialects
from app.store.clock import now
from app.store.store import Store
from app.store.tables import Event, Topic

log = logging.getLogger("prunescope.events")

POLL_SECONDS = 0.08


def analysis_topic(analysis_id: int) -> str:
    return f"analysis:{analysis_id}"


def experiment_topic(experiment_id: int) -> str:
    return f"experiment:{experiment_id}"


def publish(session: Session, topic: str | None, type: str, data: dict[str, Any]) -> int:
    """Append an event; seen by others when the transaction commits. Returns its number, from 1.

    A job that nobody listens to has no topic: then nothing happens and 0 comes back.
    """
    if topic is None:
        return 0
    statement = (
        dialects.insert(session, Topic)
        .values(name=topic, seq=1)
        .on_conflict_do_update(index_elements=["name"], set_={"seq": Topic.seq + 1})
        .returning(Topic.seq)
    )
    seq = session.execute(statement).scalar_one()
    session.add(Event(topic=topic, seq=seq, type=type, data=data, created_at=now(session)))
    session.flush()
    return seq


def read_after(session: Session, topic: str, seq: int, limit: int = 500) -> Sequence[Event]:
    """The first `limit` events of `topic` numbered above `seq`, in order."""
    statement = (
        select(Event).where(Event.topic == topic, Event.seq > seq).order_by(Event.seq).limit(limit)
    )
    return session.scalars(statement).all()


def latest(session: Session, topic: str) -> int:
    """The number of the latest event of `topic`; 0 when there is none."""
    return session.scalar(select(Topic.seq).where(Topic.name == topic)) or 0


@dataclass(eq=False)
class _Waiter:
    topic: str
    after: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[bool]

    def wake(self, *, moved: bool = True) -> None:
        def resolve() -> None:
            if not self.future.done():
                self.future.set_result(moved)

        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(resolve)


class Watcher:
    """Tells any number of waiting streams that their topic moved, with one poller for all of them.

    On SQLite the poller asks only `PRAGMA data_version` until some process has written. It sleeps
    while nobody waits. One watcher a process; `stop()` it at the end.
    """

    def __init__(self, store: Store, interval: float = POLL_SECONDS) -> None:
        self._store = store
        self._interval = interval
        self._lock = threading.Lock()
        self._waiters: set[_Waiter] = set()
        self._fresh = False
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.ticks = 0

    @property
    def waiting(self) -> int:
        """How many waits are open."""
        with self._lock:
            return len(self._waiters)

    async def wait(self, topic: str, after: int, timeout: float) -> bool:
        """True as soon as `topic` has an event above `after`; False after `timeout` seconds.

        Also False at once when the watcher has been stopped.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter(topic, after, loop, loop.create_future())
        with self._lock:
            if self._stopping.is_set():
                return False
            self._waiters.add(waiter)
            self._fresh = True
            self._wanted.set()
            self._start_locked()
        try:
            return await asyncio.wait_for(waiter.future, timeout)
        except TimeoutError:
            return False
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    def start(self) -> None:
        """Start the poller. `wait` does it too."""
        with self._lock:
            self._start_locked()

    def stop(self) -> None:
        """End the poller and every wait."""
        with self._lock:
            self._stopping.set()
            self._wanted.set()
            thread = self._thread
            for waiter in self._waiters:
                waiter.wake(moved=False)
        if thread is not None:
            thread.join()

    def _start_locked(self) -> None:
        if self._thread is None and not self._stopping.is_set():
            self._thread = threading.Thread(target=self._run, name="event-watcher", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        changes = _DataVersion(self._store) if self._store.is_sqlite else None
        while not self._stopping.is_set():
            self._wanted.wait()
            try:
                self._tick(changes)
            except (SQLAlchemyError, sqlite3.Error):
                log.warning("could not look for events, trying again", exc_info=True)
                with self._lock:
                    self._fresh = True
            self._stopping.wait(self._interval)
        if changes is not None:
            changes.close()

    def _tick(self, changes: _DataVersion | None) -> None:
        self.ticks += 1
        # The version is read first: what is written after it shows up as a change next time.
        changed = changes is None or changes.moved()
        with self._lock:
            if not self._waiters:
                if not self._stopping.is_set():
                    self._wanted.clear()
                return
            if not (changed or self._fresh):
                return
            self._fresh = False
            waiters = list(self._waiters)
        topics = {waiter.topic for waiter in waiters}
        with self._store.read() as session:
            rows = session.execute(select(Topic.name, Topic.seq).where(Topic.name.in_(topics)))
            reached = dict(iter(rows))
        for waiter in waiters:
            if reached.get(waiter.topic, 0) > waiter.after:
                waiter.wake()


class _DataVersion:
    """Whether another connection has written to the SQLite file since last asked."""

    def __init__(self, store: Store) -> None:
        # A raw connection: SQLAlchemy's own would begin a transaction and never see a change.
        self._connection = store.reader.raw_connection()
        self._seen: int | None = None

    def moved(self) -> bool:
        cursor = self._connection.cursor()
        cursor.execute("PRAGMA data_version")
        row = cast(tuple[int], cursor.fetchone())
        cursor.close()
        before, self._seen = self._seen, row[0]
        return row[0] != before

    def close(self) -> None:
        self._connection.close()
