"""Migrations: they make exactly the tables of the code, and never half of anything."""

from __future__ import annotations

import multiprocessing
import shutil
import sqlite3
import warnings
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, select
from sqlalchemy.engine import make_url

from app.domain.errors import Conflict
from app.paths import migrations_dir
from app.store import migration
from app.store.store import Store
from app.store.tables import Base, Measurement, Plan
from tests.integration.store.things import Things


def schema(path: str) -> dict[str, list[str]]:
    """What SQLite itself says that the file holds: the lines of each thing, in any order."""
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
        " AND name <> 'alembic_version'"
    ).fetchall()
    connection.close()
    return {name: _parts(sql) for name, sql in rows}


def _parts(sql: str) -> list[str]:
    """The columns and constraints of a statement, however it was typed and altered since."""
    words = " ".join(sql.replace('"', "").split())
    start, end = words.find("("), words.rfind(")")
    parts, depth = [words[:start].strip()], 0
    current = ""
    for letter in words[start + 1 : end]:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += letter
    return sorted([*parts, current.strip()])


def file_of(url: str) -> str:
    return url.removeprefix("sqlite:///")


def test_the_migrated_database_is_what_the_tables_say(store: Store) -> None:
    with warnings.catch_warnings(), store.reader.connect() as connection:
        warnings.simplefilter("error")  # a warning here means that something can't be compared
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []


def test_even_what_alembic_does_not_compare_is_the_same(store: Store, tmp_path: Path) -> None:
    """Checks, cascades, autoincrement: compared as text with a database made without Alembic."""
    engine = create_engine(f"sqlite:///{tmp_path}/direct.db")
    Base.metadata.create_all(engine)
    engine.dispose()
    direct = schema(f"{tmp_path}/direct.db")
    migrated = schema(file_of(str(store.url)))
    assert set(direct) == set(migrated)
    assert "id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT" in direct["job"]
    for name, lines in direct.items():
        assert lines == migrated[name], name


def test_down_to_nothing_and_up_again(store: Store) -> None:
    path = file_of(str(store.url))
    before = schema(path)
    assert "job" in before
    migration.downgrade(store.url, "base")
    assert schema(path) == {}
    store.migrate()
    assert schema(path) == before


def test_a_second_migration_changes_nothing(store: Store, things: Things) -> None:
    model = things.model()
    store.migrate()
    with store.read() as session:
        assert migration.current(session.connection()) == migration.head()
    assert things.job_now(model.job_id).subject_id == model.id


FAILING = """
import sqlalchemy as sa
from alembic import op
revision = "0999"
down_revision = "{head}"
branch_labels = None
depends_on = None
def upgrade():
    op.create_table("extra", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("UPDATE job SET kind = 'changed'")
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("more", sa.Text))
    op.execute("INSERT INTO no_such_table VALUES (1)")
def downgrade():
    pass
"""


def with_revision(tmp_path: Path, text: str) -> Path:
    scripts = tmp_path / "scripts"
    shutil.copytree(migrations_dir(), scripts)
    (scripts / "versions" / "0999_next.py").write_text(text.format(head=migration.head()))
    return scripts


def test_a_failed_migration_leaves_nothing_behind(
    store: Store, things: Things, tmp_path: Path
) -> None:
    job = things.job(kind="analyse")
    before = schema(file_of(str(store.url)))
    with pytest.raises(Exception, match="no_such_table"):
        migration.upgrade(store.url, scripts=with_revision(tmp_path, FAILING))
    assert schema(file_of(str(store.url))) == before
    assert things.job_now(job.id).kind == "analyse"
    with store.read() as session:
        assert migration.current(session.connection()) == migration.head()


def test_a_failed_first_migration_leaves_an_empty_file(url: str, tmp_path: Path) -> None:
    Store.open(url).dispose()
    with pytest.raises(Exception, match="no_such_table"):
        migration.upgrade(make_url(url), scripts=with_revision(tmp_path, FAILING))
    assert schema(file_of(url)) == {}


REBUILDING = """
import sqlalchemy as sa
from alembic import op
revision = "0999"
down_revision = "{head}"
branch_labels = None
depends_on = None
def upgrade():
    with op.batch_alter_table("plan", recreate="always") as table:
        table.add_column(sa.Column("note", sa.Text))
def downgrade():
    pass
"""


def test_a_table_made_anew_keeps_the_rows_that_hang_on_it(
    store: Store, things: Things, tmp_path: Path
) -> None:
    plan = things.plan()
    with store.write() as session:
        session.add(a_measurement(plan.id))
    migration.upgrade(store.url, scripts=with_revision(tmp_path, REBUILDING))
    with store.read() as session:
        assert session.scalars(select(Measurement.plan_id)).all() == [plan.id]
        assert session.get_one(Plan, plan.id).sparsities == plan.sparsities


DANGLING = """
from alembic import op
revision = "0999"
down_revision = "{head}"
branch_labels = None
depends_on = None
def upgrade():
    op.execute("DELETE FROM plan")
def downgrade():
    pass
"""


def test_a_migration_that_breaks_a_reference_is_undone(
    store: Store, things: Things, tmp_path: Path
) -> None:
    plan = things.plan()
    with store.write() as session:
        session.add(a_measurement(plan.id))
    with pytest.raises(Exception, match="measurement refers to a missing row of plan"):
        migration.upgrade(store.url, scripts=with_revision(tmp_path, DANGLING))
    with store.read() as session:
        assert session.get(Plan, plan.id) is not None


def a_measurement(plan_id: int) -> Measurement:
    figures = dict.fromkeys(("loss", "low", "high", "confidence", "sparsity"), 0)
    counts = dict.fromkeys(("samples", "correct", "accuracy", "flips", "lost", "gained"), 0)
    return Measurement(plan_id=plan_id, split="tune", baseline={}, **figures, **counts)


def test_a_database_from_the_future_is_left_alone(store: Store) -> None:
    path = file_of(str(store.url))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(Conflict, match="newer version"):
        store.migrate()


def migrate(url: str) -> None:
    store = Store.open(url)
    store.migrate()
    store.dispose()


def test_processes_that_start_together_migrate_once(url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=migrate, args=(url,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert "job" in schema(file_of(url))
