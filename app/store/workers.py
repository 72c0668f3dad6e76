"""Worker processes that are there."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.store import queue
from app.store.clock import now
from app.store.store import Store
from app.store.tables import Worker

LIVE_SECONDS = 30.0
_FORGET_SECONDS = 3600.0


def register(
    session: Session,
    pid: int | None = None,
    host: str | None = None,
    *,
    isolation: str | None = None,
) -> int:
    """Enter a worker (by default this process) and return its id.

    `isolation` names the walls that its children compute behind.
    """
    moment = now(session)
    forgotten = moment - timedelta(seconds=_FORGET_SECONDS)
    session.execute(delete(Worker).where(Worker.heartbeat_at < forgotten))
    worker = Worker(
        pid=os.getpid() if pid is None else pid,
        host=socket.gethostname() if host is None else host,
        isolation=isolation,
        started_at=moment,
        heartbeat_at=moment,
    )
    session.add(worker)
    session.flush()
    return worker.id


def heartbeat(session: Session, worker_id: int) -> None:
    """Say that the worker is still there."""
    session.execute(update(Worker).where(Worker.id == worker_id).values(heartbeat_at=now(session)))


def live(session: Session, within_seconds: float = LIVE_SECONDS) -> Sequence[Worker]:
    """The workers heard of in the last `within_seconds`, oldest first."""
    since = now(session) - timedelta(seconds=within_seconds)
    statement = select(Worker).where(Worker.heartbeat_at >= since).order_by(Worker.id)
    return session.scalars(statement).all()


def remove(session: Session, worker_id: int) -> None:
    """The worker has ended in good order."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


def bury(store: Store, pid: int, host: str | None = None) -> int:
    """The process `pid` was seen dead: forget its worker and free its jobs now, not when their
    leases run out. Returns how many jobs."""
    where = socket.gethostname() if host is None else host
    with store.read() as session:
        found = select(Worker.id).where(Worker.pid == pid, Worker.host == where)
        worker_ids = session.scalars(found).all()
    freed = 0
    for worker_id in worker_ids:
        freed += queue.reap(store, worker_id=worker_id)
        with store.write() as session:
            remove(session, worker_id)
    return freed


def bury_dead(store: Store) -> int:
    """Bury this machine's workers whose processes are gone, after it went down with all of them.

    A number that another process has by now keeps its job until the lease runs out.
    """
    host = socket.gethostname()
    with store.read() as session:
        pids = session.scalars(select(Worker.pid).where(Worker.host == host).distinct()).all()
    return sum(bury(store, pid) for pid in pids if not _is_there(pid))


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:
        # One that ended and whose parent hasn't asked how still has its number.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return True
