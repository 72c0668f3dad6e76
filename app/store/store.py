"""The database: connections, transactions, and the clock that everything in it is dated by.

SQLite needs care that its Python driver does not take by itself: transactions begin where we say
(never by the driver's guess), a writer takes the write lock before it reads, and readers cannot
write at all. On PostgreSQL the same two kinds of transaction are READ COMMITTED with row locks and
a read-only snapshot.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from app.domain.errors import Busy, InvalidInput, StorageFull
from app.store.clock import CLOCK, Clock, utc_now

BUSY_TIMEOUT_SECONDS = 30


class Store:
    """One database. Safe to share between threads; open a new one in every process.

    `clock` replaces the wall clock (an aware datetime) in tests.
    """

    def __init__(self, url: str | URL, *, clock: Clock = utc_now) -> None:
        self.url = make_url(url)
        self.clock = clock
        if self.is_sqlite:
            _prepare_sqlite_file(self.url)
            self._writer = _sqlite_engine(self.url, begin="BEGIN IMMEDIATE", read_only=False)
            self._reader = _sqlite_engine(self.url, begin="BEGIN", read_only=True)
        else:
            self._writer = create_engine(
                self.url, json_serializer=to_json, pool_pre_ping=True, pool_size=8, max_overflow=64
            )
            self._reader = self._writer.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        info = {CLOCK: clock}
        self._write_session = sessionmaker(self._writer, expire_on_commit=False, info=info)
        self._read_session = sessionmaker(self._reader, expire_on_commit=False, info=info)

    @classmethod
    def open(cls, url: str | URL, *, clock: Clock = utc_now) -> Store:
        """Open the database at `url` without touching its tables; see `migrate`."""
        return cls(url, clock=clock)

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def reader(self) -> Engine:
        """The engine of read-only connections, for the watcher's own long-lived one."""
        return self._reader

    @contextmanager
    def read(self) -> Generator[Session]:
        """One snapshot of the database; writing raises. Keep it short: an open one grows the WAL.

        Rows may be used after it has closed.
        """
        with self._read_session() as session:
            yield session

    @contextmanager
    def write(self) -> Generator[Session]:
        """A transaction that commits at the end of the block and rolls back on any exception.

        On SQLite it holds the one write lock from start to end, so compute before it, not in it.
        Raises StorageFull when the disk is full, Busy when somebody else keeps the lock.
        """
        try:
            with self._write_session() as session, session.begin():
                session.connection()  # begins, and so locks, now: not at the first statement
                yield session
        except DBAPIError as error:
            if _is_full(error):
                raise StorageFull(
                    "The database can't grow because its disk is full.",
                    "Free some space on the disk of the data directory, then try again.",
                ) from error
            if _is_busy(error):
                raise Busy(
                    f"Another program has kept the database locked for {BUSY_TIMEOUT_SECONDS} s.",
                    "End whatever else has the file open, such as a copy or a database browser.",
                ) from error
            raise

    def migrate(self, target: str = "head") -> None:
        """Bring the tables to revision `target`; all of it or, on any failure, nothing."""
        from app.store import migration

        migration.upgrade(self.url, target)

    def dispose(self) -> None:
        """Close all pooled connections."""
        self._reader.dispose()
        self._writer.dispose()


def to_json(value: Any) -> str:
    """JSON text in which NaN and infinities, that JSON has no words for, are null."""
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in cast(dict[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in cast(list[Any], value)]
    return value


def _prepare_sqlite_file(url: URL) -> None:
    if not url.database or url.database == ":memory:" or "mode=memory" in url.database:
        raise InvalidInput(
            "The database has to be a file: server and workers are separate processes.",
            "Set PRUNESCOPE_DATABASE_URL to something like sqlite:////var/lib/prunescope/db.",
        )
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)


def _sqlite_engine(url: URL, *, begin: str, read_only: bool) -> Engine:
    engine = create_engine(
        url,
        json_serializer=to_json,
        pool_size=8,
        max_overflow=64,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS},
    )
    install_sqlite(engine, begin=begin, read_only=read_only)
    return engine


def install_sqlite(
    engine: Engine, *, begin: str, read_only: bool = False, foreign_keys: bool = True
) -> None:
    """Make `engine` begin its transactions with the statement `begin`, on well-set connections."""

    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        if read_only:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)


def _is_full(error: DBAPIError) -> bool:
    origin = error.orig
    if isinstance(origin, sqlite3.Error):
        return getattr(origin, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return getattr(origin, "sqlstate", None) == "53100"


def _is_busy(error: DBAPIError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
