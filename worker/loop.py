"""Claim a job, keep its lease alive, record its end; again."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.domain.errors import Busy, LeaseLost, Stopped, StorageFull
from app.domain.words import JobKind
from app.settings import Settings
from app.store import queue, workers
from app.store.blobs import Blobs
from app.store.queue import Lease
from app.store.store import Store
from worker.context import JobContext
from worker.crew import Crew
from worker.failures import attempts_for, describe
from worker.leftovers import Sweeper
from worker.sandbox.walls import Walls
from worker.tasks import TASKS

log = logging.getLogger("prunescope.worker")

IDLE_POLL_SECONDS = 0.25
CANCEL_POLL_SECONDS = 0.5
PRESENCE_SECONDS = 5.0
GIVE_WAY_SECONDS = 1.0
GIVING_WAY = frozenset({JobKind.ANALYSE})
"""Kinds that lose little by stopping: everything measured so far is stored."""
TROUBLE_SECONDS = 2.0
"""Between two tries to write to a database that is full or locked."""

_TROUBLE = (SQLAlchemyError, StorageFull, Busy)


def _parent_alive(parent: int | None) -> bool:
    return parent is None or os.getppid() == parent


@dataclass
class WorkerLoop:
    """One worker process. `run()` returns after `stopping` is set or the parent has gone.

    It never reads an upload or runs a network itself: its tasks have that done behind `walls`.
    """

    store: Store
    settings: Settings
    walls: Walls
    parent: int | None = None
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.blobs = Blobs(self.settings.blob_url, self.settings.data_dir)
        self.crew = Crew(self.store, self.settings, self.walls)
        self.sweeper = Sweeper(self.store, self.blobs, self.settings.data_dir)
        with self.store.write() as session:
            self.worker_id = workers.register(session, isolation=self.walls.isolation.level)

    def run(self, *, once: bool = False) -> None:
        """Work until told to stop; with `once`, until nothing is queued."""
        log.info("walls around what is uploaded: %s", self.walls.isolation.sentence)
        presence = threading.Thread(target=self._keep_presence, daemon=True)
        presence.start()
        self.crew.warm_up()
        try:
            while not self.stopping.is_set() and _parent_alive(self.parent):
                try:
                    queue.reap(self.store)
                    lease = queue.claim(
                        self.store, self.worker_id, lease_seconds=self.settings.lease_seconds
                    )
                except _TROUBLE as error:
                    log.warning("no job can be taken: %s", describe(error)["message"])
                    self.stopping.wait(TROUBLE_SECONDS)
                    continue
                if lease is not None:
                    self.run_job(lease)
                elif once:
                    return
                else:
                    self.sweeper.sweep_now_and_then()
                    self.stopping.wait(IDLE_POLL_SECONDS)
        finally:
            self.crew.close()
            self._sign_off()

    def run_job(self, lease: Lease) -> None:
        """Run one job to its end. Nothing a job does takes the worker down."""
        context = JobContext(
            self.store, self.blobs, self.settings, self.walls, lease, crew=self.crew
        )
        cancelled = threading.Event()
        finished = threading.Event()
        keeper = threading.Thread(
            target=self._keep_lease, args=(context, cancelled, finished), daemon=True
        )
        keeper.start()
        log.info("job %s %s: attempt %s", lease.job_id, lease.kind, lease.attempt)
        started = time.monotonic()
        try:
            TASKS[lease.kind](context)
            self._record(lease, lambda session: queue.finish(session, lease))
            log.info("job %s done in %.1f s", lease.job_id, time.monotonic() - started)
        except LeaseLost:
            log.warning("job %s belongs to another worker now", lease.job_id)
        except Stopped:
            self._end_stopped(lease, cancelled.is_set())
        except Exception as error:
            self._end_failed(lease, error)
        finally:
            finished.set()
            keeper.join()

    def _end_stopped(self, lease: Lease, cancelled: bool) -> None:
        with suppress(LeaseLost):
            if cancelled:
                log.info("job %s cancelled", lease.job_id)
                self._record(lease, lambda session: queue.mark_cancelled(session, lease))
            else:
                log.info("job %s handed back", lease.job_id)
                self._record(lease, lambda session: queue.release(session, lease))

    def _end_failed(self, lease: Lease, error: Exception) -> None:
        described, attempts = describe(error), attempts_for(error)
        log.error("job %s failed: %s", lease.job_id, described["message"])

        def write(session: Session) -> None:
            if attempts is None:
                queue.fail(session, lease, described)
            elif queue.retry_or_fail(session, lease, described, max_attempts=attempts):
                log.info("job %s is tried again", lease.job_id)

        with suppress(LeaseLost):
            self._record(lease, write)

    def _record(self, lease: Lease, write: Callable[[Session], None]) -> None:
        """Write how a job ended, as often as it takes: a full disk must not swallow it.

        Raises LeaseLost.
        """
        while True:
            try:
                with queue.fenced(self.store, lease) as session:
                    write(session)
                return
            except _TROUBLE as error:
                message = describe(error)["message"]
                log.warning("the end of job %s can't be written yet: %s", lease.job_id, message)
            if self.stopping.wait(TROUBLE_SECONDS):
                return

    def _keep_lease(
        self, context: JobContext, cancelled: threading.Event, finished: threading.Event
    ) -> None:
        """Extend the lease every third of its time; hear of a cancel within half a second."""
        lease, lease_seconds = context.lease, self.settings.lease_seconds
        extend_at = time.monotonic() + lease_seconds / 3
        while not finished.wait(min(CANCEL_POLL_SECONDS, lease_seconds / 3)):
            moment = time.monotonic()
            if self.stopping.is_set() or not _parent_alive(self.parent):
                self.stopping.set()
                context.stop.set()
            try:
                if moment >= extend_at:
                    asked = queue.heartbeat(self.store, lease, lease_seconds=lease_seconds)
                    extend_at = time.monotonic() + lease_seconds / 3
                else:
                    asked = queue.cancel_requested(self.store, lease)
            except LeaseLost:
                context.stop.set()
                return
            except Exception as error:
                log.warning("heartbeat failed, trying again: %s", describe(error)["message"])
                extend_at = moment + TROUBLE_SECONDS
                continue
            if asked:
                cancelled.set()
                context.stop.set()
            elif self._handing_back(lease):
                context.stop.set()

    def _handing_back(self, lease: Lease) -> bool:
        """Whether the job should rest: paused, asked for more, or less urgent than another."""
        with suppress(Exception):
            if queue.handing_back(self.store, lease):
                return True
            if lease.kind in GIVING_WAY:
                return queue.outranked(self.store, lease, waiting_seconds=GIVE_WAY_SECONDS)
        return False

    def _keep_presence(self) -> None:
        while not self.stopping.wait(PRESENCE_SECONDS):
            if not _parent_alive(self.parent):
                self.stopping.set()
                return
            with suppress(Exception), self.store.write() as session:
                workers.heartbeat(session, self.worker_id)

    def _sign_off(self) -> None:
        with suppress(Exception), self.store.write() as session:
            workers.remove(session, self.worker_id)
