"""Lists in pages, newest first, that stay right while rows come and go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.domain.errors import InvalidInput

MAX_LIMIT = 500

Row = TypeVar("Row")


@dataclass(frozen=True)
class Page(Generic[Row]):
    """`next_cursor` is None on the last page."""

    items: Sequence[Row]
    next_cursor: str | None


def paged(
    session: Session,
    statement: Select[Row],
    key: InstrumentedAttribute[int],
    limit: int,
    cursor: str | None,
) -> Page[Row]:
    """The next `limit` rows (1 to 500) of `statement` below `cursor`, by descending `key`.

    Raises InvalidInput for a cursor that no page has given out, or a limit out of range.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInput(
            f"A page can't have {limit} items.",
            f"Give a limit from 1 to {MAX_LIMIT}.",
            fields={"limit": f"Has to be 1 to {MAX_LIMIT}."},
        )
    if cursor is not None:
        statement = statement.where(key < _position(cursor))
    rows = session.scalars(statement.order_by(key.desc()).limit(limit + 1)).all()
    items = rows[:limit]
    more = len(rows) > limit
    return Page(items, str(getattr(items[-1], key.key)) if more else None)


def _position(cursor: str) -> int:
    if cursor.isascii() and cursor.isdigit() and len(cursor) <= 18:
        return int(cursor)
    raise InvalidInput(
        f"The cursor {cursor[:40]!r} is not one that a list has given out.",
        "Pass on `next_cursor` of the page before, or none for the first page.",
        fields={"cursor": "Unknown."},
    )
