"""Moves a database from one revision of the tables to another, in one transaction.

`python -m app.store.migration "why"` writes a new revision from what the tables say now.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from app.domain.errors import Conflict
from app.paths import migrations_dir
from app.store import store as stores

_ADVISORY_LOCK = 1_886_613_099
# Alembic keeps the connection it works on in module globals.
_one_at_a_time = threading.Lock()


def upgrade(url: URL, target: str = "head", *, scripts: Path | None = None) -> None:
    """Bring the database at `url` up to revision `target`. All of it, or nothing.

    Processes that start together take turns. Raises Conflict when a newer version of the program
    has been at this database. `scripts` is another folder of revisions.
    """
    _run(url, lambda config: command.upgrade(config, target), scripts)


def downgrade(url: URL, target: str, *, scripts: Path | None = None) -> None:
    """Bring the database down to revision `target` ("base" for an empty one)."""
    _run(url, lambda config: command.downgrade(config, target), scripts)


def current(connection: Connection) -> str | None:
    """The revision that the database is at; None when it has no tables of ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(text("SELECT version_num FROM alembic_version"))


def head(scripts: Path | None = None) -> str | None:
    """The newest revision there is."""
    return ScriptDirectory.from_config(_config(scripts)).get_current_head()


def _config(scripts: Path | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts or migrations_dir()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _run(url: URL, action: Callable[[Config], None], scripts: Path | None) -> None:
    config = _config(scripts)
    with _one_at_a_time, _connection(url) as connection:
        config.attributes["connection"] = connection
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        found = current(connection)
        if found is not None and found not in known:
            raise Conflict(
                f"The database was made by a newer version of Prunescope (revision {found}).",
                "Install that version or a later one, or point PRUNESCOPE_DATA_DIR elsewhere.",
            )
        action(config)
        _check_references(connection)


@contextmanager
def _connection(url: URL) -> Generator[Connection]:
    """A connection in one transaction, with SQLite's foreign keys off.

    SQLite changes a table by making it anew; dropping the old one with the keys on would delete,
    by cascade, the rows that refer to it.
    """
    engine = create_engine(url, poolclass=NullPool)
    if url.get_backend_name() == "sqlite":
        stores.install_sqlite(engine, begin="BEGIN IMMEDIATE", foreign_keys=False)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
            yield connection
    finally:
        engine.dispose()


def _check_references(connection: Connection) -> None:
    if connection.dialect.name != "sqlite":
        return
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise CommandError(f"a row of {broken[0]} refers to a missing row of {broken[2]}")


def _new_revision(message: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = make_url(f"sqlite:///{folder}/empty.db")
        upgrade(url)
        _run(url, lambda config: _autogenerate(config, message), None)


def _autogenerate(config: Config, message: str) -> None:
    command.revision(config, message, autogenerate=True)


if __name__ == "__main__":
    _new_revision(" ".join(sys.argv[1:]) or "change")
