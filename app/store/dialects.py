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


def insert_larger(
    session: Session,
    table: type[Base],
    rows: Sequence[dict[str, Any]],
    keys: Sequence[str],
    by: str,
    kept: Sequence[str] = (),
) -> int:
    """Insert `rows`; where one of the same `keys` is there, it gives way if its `by` is smaller.

    The columns `kept` of a row that gives way stay as they are. Of several `rows` with the same
    keys the largest must come last. Returns how many were written; the database compares, so
    writers at the same time can't undo each other.
    """
    if not rows:
        return 0
    statement = insert(session, table)
    replaced = {name: statement.excluded[name] for name in rows[0] if name not in {*keys, *kept}}
    statement = statement.on_conflict_do_update(
        index_elements=list(keys),
        set_=replaced,
        where=statement.excluded[by] > getattr(table, by),
    )
    done = session.execute(statement.returning(literal(1)), list(rows))
    return len(done.all())


def exclusive(session: Session, name: str) -> None:
    """Let no other transaction past this line with the same `name` before this one has ended.

    SQLite's writers are alone anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(zlib.crc32(name.encode()))))
