"""The database does what the store relies on: asked of SQLite itself, under real contention."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, StatementError

from app.domain.errors import InvalidInput, StorageFull
from app.domain.words import JobState
from app.store.store import Store
from app.store.tables import Analysis, Baseline, Job, Topic, Worker
from tests.integration.store.things import Things


def pragma(session, name: str):
    return session.execute(text(f"PRAGMA {name}")).scalar_one()


def test_settings_are_truly_on(store: Store, url: str) -> None:
    for transaction in (store.read, store.write):
        with transaction() as session:
            assert pragma(session, "journal_mode") == "wal"
            assert pragma(session, "synchronous") == 2  # FULL
            assert pragma(session, "foreign_keys") == 1
            assert pragma(session, "busy_timeout") == 30_000
    # The file itself says so to a stranger too.
    stranger = sqlite3.connect(url.removeprefix("sqlite:///"))
    assert stranger.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    stranger.close()


def test_writer_holds_the_lock_before_its_first_read(store: Store, url: str) -> None:
    stranger = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0, isolation_level=None)
    with store.write(), pytest.raises(sqlite3.OperationalError, match="locked"):
        stranger.execute("BEGIN IMMEDIATE")
    stranger.execute("BEGIN IMMEDIATE")
    stranger.close()


def test_reader_takes_no_lock_and_cannot_write(store: Store, url: str) -> None:
    stranger = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0, isolation_level=None)
    with store.read() as session:
        session.execute(select(Job.id)).all()
        stranger.execute("BEGIN IMMEDIATE")
        stranger.execute("COMMIT")
        session.add(Topic(name="x", seq=1))
        with pytest.raises(OperationalError, match="readonly"):
            session.flush()
    stranger.close()


def test_reader_sees_one_snapshot(store: Store) -> None:
    with store.read() as before:
        assert before.scalar(select(Topic.seq)) is None
        with store.write() as session:
            session.add(Topic(name="x", seq=1))
        assert before.scalar(select(Topic.seq)) is None
    with store.read() as after:
        assert after.scalar(select(Topic.seq)) == 1


def test_an_exception_rolls_everything_back(store: Store) -> None:
    def write_and_fail() -> None:
        with store.write() as session:
            session.add(Topic(name="x", seq=1))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    with store.read() as session:
        assert session.scalars(select(Topic)).all() == []


def add_ones(url: str, times: int) -> None:
    store = Store.open(url)
    for _ in range(times):
        with store.write() as session:
            seq = session.scalars(select(Topic.seq)).one()  # a read first: where deferred ones fail
            session.execute(update(Topic).values(seq=seq + 1))
    store.dispose()


def test_no_update_is_lost_between_processes_and_threads(store: Store, url: str) -> None:
    with store.write() as session:
        session.add(Topic(name="count", seq=0))
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=add_ones, args=(url, 40)) for _ in range(3)]
    threads = [threading.Thread(target=add_ones, args=(url, 40)) for _ in range(3)]
    for one in processes + threads:
        one.start()
    for one in processes + threads:
        one.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with store.read() as session:
        assert session.scalars(select(Topic.seq)).one() == 240


def test_foreign_keys_hold(store: Store, things: Things) -> None:
    dataset = things.dataset()
    with pytest.raises(IntegrityError), store.write() as session:
        session.add(
            Analysis(
                model_id=77,
                dataset_id=dataset.id,
                granularity="weight",
                criteria=[],
                levels=[],
                evaluation={},
                recalibrate_batch_norm=False,
                seed=0,
            )
        )


def test_only_known_states_can_be_stored(store: Store, things: Things) -> None:
    job = things.job()
    with pytest.raises(IntegrityError), store.write() as session:
        session.execute(text("UPDATE job SET state = 'sleeping' WHERE id = :id"), {"id": job.id})
    assert things.job_now(job.id).state is JobState.QUEUED


def test_rows_can_be_used_after_the_session(store: Store, things: Things) -> None:
    job = things.job(payload={"a": 1})
    assert (job.payload, job.state.value) == ({"a": 1}, "queued")


def test_ids_are_never_reused(store: Store, things: Things) -> None:
    first = things.job().id
    with store.write() as session:
        session.execute(text("DELETE FROM job"))
    assert things.job().id > first


def test_times_are_utc_whatever_zone_they_come_in(store: Store) -> None:
    there = datetime(2031, 5, 1, 9, 30, 15, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    with store.write() as session:
        session.add(Worker(pid=1, host="h", started_at=there, heartbeat_at=there))
    with store.read() as session:
        found = session.scalars(select(Worker.started_at)).one()
    assert found.isoformat() == "2031-05-01T04:00:15.123456+00:00"
    naive = there.replace(tzinfo=None)
    with pytest.raises(StatementError, match="no time zone"), store.write() as session:
        session.add(Worker(pid=1, host="h", started_at=naive, heartbeat_at=naive))
    assert found.tzinfo is UTC


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number_is_null(store: Store, number: float) -> None:
    with store.write() as session:
        session.add(
            Baseline(context="c", samples=1, correct=1, loss=number, accuracy=1, low=0, high=1)
        )
        session.add(
            Job(
                kind="k",
                state=JobState.QUEUED,
                payload={"a": [1.5, number, {"b": number}]},
                priority=0,
                attempt=0,
                max_attempts=1,
                cancel_requested=False,
                progress={},
            )
        )
    with store.read() as session:
        assert session.scalars(select(Baseline)).one().loss is None
        assert session.scalars(select(Job)).one().payload == {"a": [1.5, None, {"b": None}]}


def test_a_full_disk_is_said_in_words_and_leaves_nothing(store: Store) -> None:
    def fill() -> None:
        with store.write() as session:
            pages = pragma(session, "page_count")
            session.execute(text(f"PRAGMA max_page_count = {pages}"))
            session.add(Topic(name="first", seq=1))
            session.flush()
            session.add(Topic(name="x" * 200_000, seq=1))

    with pytest.raises(StorageFull, match="disk is full"):
        fill()
    with store.read() as session:
        assert session.scalars(select(Topic)).all() == []


def test_other_database_errors_stay_what_they_are(store: Store) -> None:
    with pytest.raises(DBAPIError), store.write() as session:
        session.execute(text("SELECT * FROM nothing"))


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput, match="has to be a file"):
        Store.open(address)


def test_the_folder_of_the_database_is_made(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path}/a/b/c.db")
    with store.read() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1
    store.dispose()
