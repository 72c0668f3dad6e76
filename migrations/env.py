"""Run by Alembic; the connection, in its transaction, comes from `app.store.migration`."""

from typing import Any, Literal

from alembic import context
from sqlalchemy.types import TypeDecorator

from app.store.tables import Base


def render_item(kind: str, item: Any, _context: object) -> str | Literal[False]:
    """A revision names plain column types, so that it reads the same when ours change."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{item.impl!r}"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    render_item=render_item,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
