"""Claim a job, keep its lease alive, record its end; again."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from app.domain.errors import LeaseLost, PrunescopeError, Stopped, StorageFull
from app.domain.words import JobKind
from app.settings import Settings
from app.store import queue, workers
from app.store.blobs import Blobs
from app.store.queue import Lease
from app.store.store import Store
from worker.context import JobContext
from worker.tasks import TASKS

log = logging.getLogger("prunescope.worker")

IDLE_POLL_SECONDS = 0.25
CANCEL_POLL_SECONDS = 0.5
PRESENCE_SECONDS = 5.0
GIVE_WAY_SECONDS = 1.0
GIVING_WAY = frozenset({JobKind.ANALYSE})
"""Kinds that lose little by stopping: everything measured so far is stored."""


def _parent_alive(parent: int | None) -> bool:
    return parent is None or os.getppid() == parent


@dataclass
class WorkerLoop:
    """One worker process. `run()` returns after `stopping` is set or the parent has gone."""

    store: Store
    settings: Settings
    parent: int | None = None
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.blobs = Blobs(self.settings.blob_url, self.settings.data_dir)
        with self.store.write() as session:
            self.worker_id = workers.register(session)

    def run(self, *, once: bool = False) -> None:
        """Work until told to stop; with `once`, until nothing is queued."""
        presence = threading.Thread(target=self._keep_presence, daemon=True)
        presence.start()
        try:
            while not self.stopping.is_set() and _parent_alive(self.parent):
                queue.reap(self.store)
                lease = queue.claim(
                    self.store, self.worker_id, lease_seconds=self.settings.lease_seconds
                )
                if lease is not None:
                    self.run_job(lease)
                elif once:
                    return
                else:
                    self.stopping.wait(IDLE_POLL_SECONDS)
        finally:
            with suppress(Exception), self.store.write() as session:
                workers.remove(session, self.worker_id)

    def run_job(self, lease: Lease) -> None:
        """Run one job to its end. Nothing a job does takes the worker down."""
        context = JobContext(self.store, self.blobs, self.settings, lease)
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
            with context.write() as session:
                queue.finish(session, lease)
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
        with suppress(LeaseLost), queue.fenced(self.store, lease) as session:
            if cancelled:
                log.info("job %s cancelled", lease.job_id)
                queue.mark_cancelled(session, lease)
            else:
                log.info("job %s handed back", lease.job_id)
                queue.release(session, lease)

    def _end_failed(self, lease: Lease, error: Exception) -> None:
        described = describe(error)
        log.error("job %s failed: %s", lease.job_id, described["message"])
        with suppress(LeaseLost), queue.fenced(self.store, lease) as session:
            queue.fail(session, lease, described)

    def _keep_lease(
        self, context: JobContext, cancelled: threading.Event, finished: threading.Event
    ) -> None:
        """Extend the lease every third of its time; hear of a cancel within half a second."""
        lease_seconds = self.settings.lease_seconds
        extend_at = time.monotonic() + lease_seconds / 3
        while not finished.wait(min(CANCEL_POLL_SECONDS, lease_seconds / 3)):
            if self.stopping.is_set() or not _parent_alive(self.parent):
                self.stopping.set()
                context.stop.set()
            try:
                if time.monotonic() >= extend_at:
                    asked = queue.heartbeat(self.store, context.lease, lease_seconds=lease_seconds)
                    extend_at = time.monotonic() + lease_seconds / 3
                else:
                    asked = queue.cancel_requested(self.store, context.lease)
            except LeaseLost:
                context.stop.set()
                return
            except Exception:
                log.warning("heartbeat failed, trying again", exc_info=True)
                continue
            if asked:
                cancelled.set()
                context.stop.set()
            elif context.lease.kind in GIVING_WAY and self._someone_waits(context.lease):
                context.stop.set()

    def _someone_waits(self, lease: Lease) -> bool:
        with suppress(Exception):
            return queue.outranked(self.store, lease, waiting_seconds=GIVE_WAY_SECONDS)
        return False

    def _keep_presence(self) -> None:
        while not self.stopping.wait(PRESENCE_SECONDS):
            if not _parent_alive(self.parent):
                self.stopping.set()
                return
            with suppress(Exception), self.store.write() as session:
                workers.heartbeat(session, self.worker_id)


def describe(error: BaseException) -> dict[str, Any]:
    """Any exception as `{code, message, hint}`; a traceback only ever goes to the log."""
    if isinstance(error, PrunescopeError):
        return error.as_dict()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(
            "The disk is full.", "Make room in the data directory, then retry the job."
        ).as_dict()
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return {
            "code": "out-of-memory",
            "message": "There is not enough memory for this model and batch.",
            "hint": "Free some memory on the machine, then retry the job.",
        }
    log.error("unexpected error\n%s", "".join(traceback.format_exception(error)))
    last = str(error).strip().splitlines()
    return {
        "code": "internal",
        "message": f"Something unexpected went wrong ({type(error).__name__}"
        + (f": {last[0][:300]})." if last else ")."),
        "hint": "The worker's log has the details. Retrying does no harm.",
    }


def lower_priority() -> None:
    """Give way to the web server when both want the same core."""
    with suppress(OSError, AttributeError):
        os.nice(10)
