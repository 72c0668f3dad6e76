"""Lists, newest first, in pages that stay whole while new things arrive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query
from sqlalchemy import Row, Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.domain.errors import InvalidInput

DEFAULT_LIMIT = 50
MAX_LIMIT = 200


@dataclass(frozen=True)
class Paging:
    """`before`: only things with a smaller id."""

    limit: int
    before: int | None = None


def paging(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: Annotated[
        str | None, Query(max_length=40, description="`next_cursor` of the page before.")
    ] = None,
) -> Paging:
    if cursor is None:
        return Paging(limit, None)
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise InvalidInput(
            "The cursor is none of ours.",
            "Take next_cursor of the page before, or leave it out.",
            fields={"cursor": "Unknown cursor."},
        )
    return Paging(limit, int(cursor))


Asked = Annotated[Paging, Depends(paging)]


def fetch(
    session: Session, statement: Select[Any], key: InstrumentedAttribute[int], asked: Paging
) -> tuple[list[Row[Any]], str | None]:
    """One page of `statement`'s rows by falling `key`, and the cursor of the next page.

    The first entity of every row is the one that `key` belongs to.
    """
    if asked.before is not None:
        statement = statement.where(key < asked.before)
    rows = list(session.execute(statement.order_by(key.desc()).limit(asked.limit + 1)))
    if len(rows) <= asked.limit:
        return rows, None
    rows = rows[: asked.limit]
    return rows, str(rows[-1][0].id)
