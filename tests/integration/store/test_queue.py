"""Leases: who may work on a job, for how long, and how each one ends."""

from __future__ import annotations

import multiprocessing
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from app.domain.errors import Conflict, LeaseLost, NotFound
from app.domain.words import JobState, Status
from app.store import datasets, events, models, plans, queue
from app.store.store import Store
from app.store.tables import Topic
from tests.integration.store.conftest import HandClock
from tests.integration.store.things import Things

ERROR = {"code": "invalid-file", "message": "It is no model.", "hint": "Export it."}


def announced(store: Store, topic: str) -> list[tuple[str, Any]]:
    with store.read() as session:
        found = events.read_after(session, topic, 0)
    return [(event.type, event.data.get("status") or event.data.get("state")) for event in found]


def test_highest_priority_first_then_first_come(things: Things) -> None:
    jobs = [things.job(priority=priority).id for priority in (0, 5, 0, 5, -1)]
    order = [things.claim().job_id for _ in jobs]
    assert order == [jobs[1], jobs[3], jobs[0], jobs[2], jobs[4]]
    assert queue.claim(things.store, 1) is None


def test_a_claimed_job_is_running_in_that_workers_hands(things: Things, clock: HandClock) -> None:
    job = things.job("measure", payload={"plan_id": 4}, topic="t", max_attempts=2)
    started = clock.time
    lease = things.claim(worker=9, lease_seconds=40)
    assert (lease.job_id, lease.kind, lease.payload) == (job.id, "measure", {"plan_id": 4})
    assert (lease.attempt, lease.max_attempts, lease.topic) == (1, 2, "t")
    held = things.job_now(job.id)
    assert (held.state, held.worker, held.attempt) == (JobState.RUNNING, 9, 1)
    assert held.started_at == started
    assert held.lease_expires_at is not None
    assert (held.lease_expires_at - started).total_seconds() == 40
    assert len(lease.token) == 32


def claim_all(url: str, worker: int, found: Any) -> None:
    store = Store.open(url)
    mine = []
    while (lease := queue.claim(store, worker)) is not None:
        mine.append(lease.job_id)
    found.put((worker, mine))
    store.dispose()


def test_eight_processes_never_get_the_same_job(things: Things, url: str) -> None:
    with things.store.write() as session:
        jobs = {queue.enqueue(session, "analyse", {}).id for _ in range(160)}
    spawn = multiprocessing.get_context("spawn")
    found = spawn.Queue()
    processes = [spawn.Process(target=claim_all, args=(url, n, found)) for n in range(8)]
    for process in processes:
        process.start()
    taken = Counter(job for _ in processes for job in found.get(timeout=60)[1])
    for process in processes:
        process.join()
    assert set(taken) == jobs
    assert set(taken.values()) == {1}


def test_the_claim_locks_rows_where_the_database_can() -> None:
    statement = queue.next_queued()
    on_postgresql = str(statement.compile(dialect=postgresql.dialect()))
    assert re.search(r"LIMIT .* FOR UPDATE SKIP LOCKED$", on_postgresql.replace("\n", " "))
    assert "FOR UPDATE" not in str(statement.compile(dialect=sqlite.dialect()))


def test_a_heartbeat_extends_the_lease(things: Things, clock: HandClock) -> None:
    things.job()
    lease = things.claim(lease_seconds=60)
    for _ in range(3):
        clock.forward(50)
        assert queue.heartbeat(things.store, lease, lease_seconds=60) is False
        assert queue.reap(things.store) == 0
    clock.forward(61)
    assert queue.reap(things.store) == 1
    with pytest.raises(LeaseLost, match="not in this worker's hands"):
        queue.heartbeat(things.store, lease)
    with pytest.raises(LeaseLost):
        queue.cancel_requested(things.store, lease)


def test_a_job_taken_away_goes_to_the_next_worker(things: Things, clock: HandClock) -> None:
    job = things.job(topic="t")
    late = things.claim(1)
    clock.forward(61)
    assert queue.reap(things.store) == 1
    waiting = things.job_now(job.id)
    assert (waiting.state, waiting.worker, waiting.lease_token) == (JobState.QUEUED, None, None)
    fresh = things.claim(2)
    assert (fresh.job_id, fresh.attempt) == (job.id, 2)
    assert fresh.token != late.token
    assert announced(things.store, "t") == [
        ("status", "queued"),
        ("status", "running"),
        ("status", "queued"),
        ("status", "running"),
    ]


def test_late_writes_are_refused_and_nothing_of_them_stays(
    things: Things, clock: HandClock
) -> None:
    job = things.job()
    late = things.claim(1)
    clock.forward(61)
    queue.reap(things.store)
    fresh = things.claim(2)
    with pytest.raises(LeaseLost), queue.fenced(things.store, late) as session:
        session.add(Topic(name="late", seq=1))

    def end_late(how: Callable[..., None], *more: Any) -> None:
        with things.store.write() as session:
            session.add(Topic(name="late", seq=1))
            how(session, late, *more)

    for how, *more in (
        (queue.finish,),
        (queue.fail, ERROR),
        (queue.mark_cancelled,),
        (queue.release,),
        (queue.progress, 1, 2, None),
    ):
        with pytest.raises(LeaseLost):
            end_late(how, *more)
    with things.store.read() as session:
        assert session.scalars(select(Topic)).all() == []
    now = things.job_now(job.id)
    assert (now.state, now.worker, now.lease_token) == (JobState.RUNNING, 2, fresh.token)


def test_an_expired_lease_still_counts_until_somebody_takes_the_job(
    things: Things, clock: HandClock
) -> None:
    job = things.job()
    lease = things.claim()
    clock.forward(1000)
    with queue.fenced(things.store, lease) as session:
        queue.finish(session, lease)
    assert things.job_now(job.id).state == JobState.DONE


def test_the_fence_commits_results_and_end_together(things: Things) -> None:
    job = things.job()
    lease = things.claim()

    def finish_and_fail() -> None:
        with queue.fenced(things.store, lease) as session:
            session.add(Topic(name="result", seq=1))
            queue.finish(session, lease)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        finish_and_fail()
    assert things.job_now(job.id).state == JobState.RUNNING
    with queue.fenced(things.store, lease) as session:
        session.add(Topic(name="result", seq=1))
        queue.finish(session, lease)
    assert things.job_now(job.id).state == JobState.DONE
    with things.store.read() as session:
        assert session.get(Topic, "result") is not None
    with pytest.raises(LeaseLost), queue.fenced(things.store, lease):
        pass


def test_worker_death_again_and_again_ends_the_job(things: Things, clock: HandClock) -> None:
    job = things.job(max_attempts=3)
    for attempt in (1, 2, 3):
        assert things.job_now(job.id).state == JobState.QUEUED
        assert things.claim().attempt == attempt
        clock.forward(61)
        assert queue.reap(things.store) == 1
    ended = things.job_now(job.id)
    assert ended.state == JobState.FAILED
    assert ended.finished_at == clock.time
    assert ended.error is not None
    assert ended.error["code"] == "worker-died"
    assert "died 3 times in a row" in ended.error["message"]
    assert "memory" in ended.error["hint"]
    assert queue.claim(things.store, 1) is None


def test_a_worker_seen_dead_loses_its_jobs_at_once(things: Things) -> None:
    mine, others = things.job(), things.job()
    things.claim(worker=1)
    things.claim(worker=2)
    assert queue.reap(things.store, worker_id=1) == 1
    assert things.job_now(mine.id).state == JobState.QUEUED
    assert things.job_now(others.id).state == JobState.RUNNING


def test_a_deterministic_error_is_not_tried_again(things: Things, clock: HandClock) -> None:
    job = things.job(topic="t")
    lease = things.claim()
    with queue.fenced(things.store, lease) as session:
        queue.fail(session, lease, ERROR)
    ended = things.job_now(job.id)
    assert (ended.state, ended.error, ended.attempt) == (JobState.FAILED, ERROR, 1)
    clock.forward(1000)
    assert queue.reap(things.store) == 0
    assert queue.claim(things.store, 1) is None
    with things.store.read() as session:
        last = events.read_after(session, "t", 2)[0]
    assert last.data == {
        "status": "failed",
        "error": ERROR,
        "progress": {"done": 0, "total": 0, "eta": None},
        "paused": False,
    }


@pytest.mark.parametrize(("allowed", "attempts"), [(2, 2), (9, 3)])
def test_what_may_go_well_the_next_time_is_tried_again(
    things: Things, allowed: int, attempts: int
) -> None:
    """As often as the error allows, and never more often than the job."""
    job = things.job(max_attempts=3)
    for attempt in range(1, attempts + 1):
        lease = things.claim()
        with queue.fenced(things.store, lease) as session:
            again = queue.retry_or_fail(session, lease, ERROR, max_attempts=allowed)
        found = things.job_now(job.id)
        assert again == (attempt < attempts)
        assert found.attempt == attempt
        assert found.state == (JobState.QUEUED if again else JobState.FAILED)
        assert found.error == (None if again else ERROR)
    assert queue.claim(things.store, 1) is None


def test_a_cancelled_job_is_not_tried_again(things: Things) -> None:
    for attempts in (1, 3):
        job = things.job(max_attempts=attempts)
        lease = things.claim()
        with things.store.write() as session:
            queue.request_cancel(session, job.id)
        with queue.fenced(things.store, lease) as session:
            assert not queue.retry_or_fail(session, lease, ERROR, max_attempts=attempts)
        assert things.job_now(job.id).state == JobState.CANCELLED


def test_a_job_handed_back_costs_no_attempt(things: Things) -> None:
    job = things.job()
    for _ in range(5):
        lease = things.claim()
        assert lease.attempt == 1
        with queue.fenced(things.store, lease) as session:
            queue.release(session, lease)
        assert things.job_now(job.id).state == JobState.QUEUED


def test_cancelling_a_queued_job_ends_it_at_once(things: Things) -> None:
    job = things.job(topic="t")
    with things.store.write() as session:
        assert queue.request_cancel(session, job.id).state == JobState.CANCELLED
    assert queue.claim(things.store, 1) is None
    assert announced(things.store, "t") == [("status", "queued"), ("status", "cancelled")]


def test_cancelling_a_running_job_asks_its_worker(things: Things) -> None:
    job = things.job()
    lease = things.claim()
    assert queue.cancel_requested(things.store, lease) is False
    for _ in range(2):  # asking twice is no mistake
        with things.store.write() as session:
            assert queue.request_cancel(session, job.id).state == JobState.RUNNING
    assert queue.heartbeat(things.store, lease) is True
    assert queue.cancel_requested(things.store, lease) is True
    with queue.fenced(things.store, lease) as session:
        queue.mark_cancelled(session, lease)
    assert things.job_now(job.id).state == JobState.CANCELLED


@pytest.mark.parametrize("way", ["reap", "release"])
def test_a_job_asked_to_stop_never_starts_again(things: Things, clock: HandClock, way: str) -> None:
    job = things.job()
    lease = things.claim()
    with things.store.write() as session:
        queue.request_cancel(session, job.id)
    if way == "reap":
        clock.forward(61)
        queue.reap(things.store)
    else:
        with queue.fenced(things.store, lease) as session:
            queue.release(session, lease)
    assert things.job_now(job.id).state == JobState.CANCELLED


def test_what_has_ended_can_not_be_cancelled(things: Things) -> None:
    job = things.job()
    lease = things.claim()
    with queue.fenced(things.store, lease) as session:
        queue.finish(session, lease)
    with pytest.raises(Conflict, match="is done"), things.store.write() as session:
        queue.request_cancel(session, job.id)
    with pytest.raises(NotFound, match="no job 999"), things.store.write() as session:
        queue.request_cancel(session, 999)


def test_retry_gives_all_attempts_again(things: Things, clock: HandClock) -> None:
    job = things.job(max_attempts=1)
    things.claim()
    clock.forward(61)
    queue.reap(things.store)
    with things.store.write() as session:
        queue.retry(session, job.id)
    again = things.job_now(job.id)
    assert (again.state, again.attempt, again.error) == (JobState.QUEUED, 0, None)
    assert (again.finished_at, again.started_at, again.cancel_requested) == (None, None, False)
    assert things.claim().attempt == 1


def test_only_failed_and_cancelled_jobs_can_be_retried(things: Things) -> None:
    job = things.job()
    with pytest.raises(Conflict, match="is queued"), things.store.write() as session:
        queue.retry(session, job.id)
    lease = things.claim()
    with pytest.raises(Conflict, match="is running"), things.store.write() as session:
        queue.retry(session, job.id)
    with queue.fenced(things.store, lease) as session:
        queue.finish(session, lease)
    with pytest.raises(Conflict, match="is done"), things.store.write() as session:
        queue.retry(session, job.id)
    with pytest.raises(NotFound), things.store.write() as session:
        queue.retry(session, 999)


def test_progress_is_kept_and_announced(things: Things) -> None:
    job = things.job(topic="analysis:7")
    lease = things.claim()
    with queue.fenced(things.store, lease) as session:
        queue.progress(session, lease, 3, 12, 4.5)
    assert things.job_now(job.id).progress == {"done": 3, "total": 12, "eta": 4.5}
    with things.store.read() as session:
        last = events.read_after(session, "analysis:7", 2)[0]
    assert (last.seq, last.type) == (3, "status")
    assert last.data == {
        "status": "running",
        "error": None,
        "progress": {"done": 3, "total": 12, "eta": 4.5},
        "paused": False,
    }


def test_a_measurement_job_speaks_for_itself_on_its_analysis(things: Things) -> None:
    plan = things.plan()
    with things.store.write() as session:
        queue.request_cancel(session, plan_job(things, plan.analysis_id))
        job = plans.request_measurement(session, plan.id, "tune")
    with things.store.read() as session:
        last = events.read_after(session, f"analysis:{plan.analysis_id}", 2)[0]
    assert (last.type, last.data) == (
        "job",
        {
            "job_id": job.id,
            "kind": "measure",
            "plan_id": plan.id,
            "state": "queued",
            "error": None,
            "progress": {"done": 0, "total": 0, "eta": None},
            "paused": False,
        },
    )


def plan_job(things: Things, analysis_id: int) -> int:
    from app.store import analyses

    with things.store.read() as session:
        job_id = analyses.get(session, analysis_id).job_id
    assert job_id is not None
    return job_id


@pytest.mark.parametrize("noun", ["model", "dataset"])
def test_an_import_takes_its_subject_along(things: Things, clock: HandClock, noun: str) -> None:
    row = things.importing_model() if noun == "model" else things.importing_dataset()
    module = models if noun == "model" else datasets

    def now() -> tuple[Status, Any]:
        with things.store.read() as session:
            found = module.get(session, row.id)
        return found.status, (found.error or {}).get("code")

    def retry() -> None:
        with things.store.write() as session:
            queue.retry(session, row.job_id)

    assert now() == (Status.IMPORTING, None)
    lease = things.claim()
    with queue.fenced(things.store, lease) as session:
        queue.fail(session, lease, ERROR)
    assert now() == (Status.FAILED, "invalid-file")
    retry()
    assert now() == (Status.IMPORTING, None)
    with things.store.write() as session:
        queue.request_cancel(session, row.job_id)
    assert now() == (Status.FAILED, "cancelled")
    retry()
    for _ in range(3):
        assert now() == (Status.IMPORTING, None)
        things.claim()
        clock.forward(61)
        queue.reap(things.store)
    assert now() == (Status.FAILED, "worker-died")
    retry()
    lease = things.claim()
    with queue.fenced(things.store, lease) as session:
        module.get(session, row.id).status = Status.READY
        queue.finish(session, lease)
    assert now() == (Status.READY, None)


def test_counts_and_pages(things: Things) -> None:
    jobs = [things.job().id for _ in range(5)]
    lease = things.claim()
    with queue.fenced(things.store, lease) as session:
        queue.finish(session, lease)
    things.claim()
    with things.store.read() as session:
        assert queue.counts(session) == {
            JobState.QUEUED: 3,
            JobState.RUNNING: 1,
            JobState.DONE: 1,
            JobState.FAILED: 0,
            JobState.CANCELLED: 0,
        }
        first = queue.listing(session, limit=2)
        second = queue.listing(session, limit=2, cursor=first.next_cursor)
        third = queue.listing(session, limit=2, cursor=second.next_cursor)
        queued = queue.listing(session, state=JobState.QUEUED)
        found = queue.get_many(session, [jobs[0], None, 999, jobs[0]])
    pages = [[job.id for job in page.items] for page in (first, second, third)]
    assert pages == [jobs[:2:-1], jobs[2:0:-1], [jobs[0]]]
    assert third.next_cursor is None
    assert [job.id for job in queued.items] == jobs[:1:-1]
    assert set(found) == {jobs[0]}
