"""The two words that SQLite and PostgreSQL share but standard SQL lacks."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.store.tables import Base


def insert(session: Session, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that knows ON CONFLICT, for the database of `session`."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def insert_missing(
    session: Session, table: type[Base], rows: Sequence[dict[str, Any]], keys: Sequence[str]
) -> int:
    """Insert those `rows` whose `keys` are not there yet; returns how many that were."""
    if not rows:
        return 0
    statement = insert(session, table).on_conflict_do_nothing(index_elements=list(keys))
    done = session.execute(statement.returning(literal(1)), list(rows))
    return len(done.all())


def exclusive(session: Session, name: str) -> None:
    """Let no other transaction past this line with the same `name` before this one has ended.

    SQLite's writers are alone anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(zlib.crc32(name.encode()))))
