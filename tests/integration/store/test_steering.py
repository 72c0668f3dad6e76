"""Pauses and priorities, also while a worker dies."""

from __future__ import annotations

import pytest

from app.domain.errors import Conflict, LeaseLost, NotFound
from app.domain.words import JobState, Priority
from app.store import events, queue, steering
from app.store.tables import Job
from tests.integration.store.conftest import HandClock
from tests.integration.store.things import Things


def pause(things: Things, job_id: int) -> Job:
    with things.store.write() as session:
        return steering.pause(session, job_id)


def resume(things: Things, job_id: int) -> Job:
    with things.store.write() as session:
        return steering.resume(session, job_id)


def test_a_paused_job_is_not_taken_until_it_is_resumed(things: Things) -> None:
    first, second = things.job(topic="t"), things.job()
    assert pause(things, first.id).state == JobState.QUEUED
    assert things.claim().job_id == second.id
    assert queue.claim(things.store, 1) is None
    assert pause(things, first.id).paused, "twice is once"
    assert not resume(things, first.id).paused
    assert not resume(things, first.id).paused
    assert things.claim().job_id == first.id
    with things.store.read() as session:
        told = [event.data["paused"] for event in events.read_after(session, "t", 0)]
    assert told == [False, True, False, False]


def test_a_running_job_is_handed_back_and_waits(things: Things) -> None:
    job = things.job()
    lease = things.claim()
    assert not queue.handing_back(things.store, lease)
    assert pause(things, job.id).state == JobState.RUNNING
    assert queue.handing_back(things.store, lease)
    with queue.fenced(things.store, lease) as session:
        queue.release(session, lease)
    assert (things.job_now(job.id).state, things.job_now(job.id).attempt) == (JobState.QUEUED, 0)
    assert queue.claim(things.store, 1) is None
    with pytest.raises(LeaseLost):
        queue.handing_back(things.store, lease)
    resume(things, job.id)
    assert things.claim().attempt == 1


def test_a_pause_outlives_the_worker(things: Things, clock: HandClock) -> None:
    """Killed before it heard of it: the job is queued again, and still rests."""
    job = things.job()
    things.claim(lease_seconds=30)
    pause(things, job.id)
    clock.forward(31)
    assert queue.reap(things.store) == 1
    assert things.job_now(job.id).paused
    assert queue.claim(things.store, 1) is None
    resume(things, job.id)
    assert things.claim().attempt == 2


def test_the_end_of_a_job_ends_its_pause(things: Things) -> None:
    done, cancelled, failed = things.job(), things.job(), things.job()
    leases = [things.claim() for _ in range(3)]
    for job in (done, cancelled, failed):
        pause(things, job.id)
    with queue.fenced(things.store, leases[0]) as session:
        queue.finish(session, leases[0])
    with things.store.write() as session:
        queue.request_cancel(session, cancelled.id)
    with queue.fenced(things.store, leases[1]) as session:
        queue.mark_cancelled(session, leases[1])
    with queue.fenced(things.store, leases[2]) as session:
        queue.fail(session, leases[2], {"code": "x", "message": "m", "hint": ""})
    for job in (done, cancelled, failed):
        assert not things.job_now(job.id).paused
    with things.store.write() as session:
        queue.retry(session, failed.id)
    assert things.claim().job_id == failed.id


def test_a_paused_job_can_be_cancelled(things: Things) -> None:
    job = things.job()
    pause(things, job.id)
    with things.store.write() as session:
        assert queue.request_cancel(session, job.id).state == JobState.CANCELLED


def test_what_has_ended_is_not_steered(things: Things) -> None:
    job = things.job()
    with things.store.write() as session:
        queue.request_cancel(session, job.id)
    for what in (steering.pause, steering.resume):
        with things.store.write() as session, pytest.raises(Conflict, match="ended already"):
            what(session, job.id)
        with things.store.write() as session, pytest.raises(NotFound, match="no job 41"):
            what(session, 41)
    with things.store.write() as session, pytest.raises(Conflict, match="ended already"):
        steering.set_priority(session, job.id, Priority.HIGH)


def test_words_and_numbers_of_priority(things: Things) -> None:
    for kind in ("analyse", "retrain", "import-model", "measure"):
        job = things.job(kind)
        for word in Priority:
            with things.store.write() as session:
                assert steering.priority_word(steering.set_priority(session, job.id, word)) == word
    assert steering.priority_number("analyse", Priority.HIGH) < queue.SHORT_JOB_PRIORITY, (
        "an import that somebody waits for still comes first"
    )


def test_the_urgent_outrank_but_not_while_they_rest(things: Things, clock: HandClock) -> None:
    running, waiting = things.job(), things.job()
    lease = things.claim()
    assert lease.job_id == running.id
    clock.forward(5)
    assert not queue.outranked(things.store, lease, waiting_seconds=1)
    with things.store.write() as session:
        steering.set_priority(session, waiting.id, Priority.HIGH)
    assert queue.outranked(things.store, lease, waiting_seconds=1)
    pause(things, waiting.id)
    assert not queue.outranked(things.store, lease, waiting_seconds=1)
    resume(things, waiting.id)
    with things.store.write() as session:
        steering.set_priority(session, running.id, Priority.HIGH)
    assert not queue.outranked(things.store, lease, waiting_seconds=1)


def test_more_for_a_job_that_runs_is_done_by_its_next_turn(things: Things) -> None:
    job = things.job(payload={"analysis_id": 3})
    lease = things.claim()
    with things.store.write() as session:
        steering.ask_for_more(session, job.id)
    assert queue.handing_back(things.store, lease)
    with queue.fenced(things.store, lease) as session:
        queue.release(session, lease)
    again = things.claim()
    assert again.payload == {"analysis_id": 3, "round": 1}
    assert not queue.handing_back(things.store, again)
    with queue.fenced(things.store, again) as session:
        queue.finish(session, again)
    assert things.job_now(job.id).state == JobState.DONE
    with things.store.write() as session:
        assert steering.ask_for_more(session, job.id).state == JobState.QUEUED
        with pytest.raises(NotFound):
            steering.ask_for_more(session, 41)


def test_a_job_cancelled_while_more_was_asked_stays_cancelled(things: Things) -> None:
    job = things.job()
    lease = things.claim()
    with things.store.write() as session:
        steering.ask_for_more(session, job.id)
        queue.request_cancel(session, job.id)
    with queue.fenced(things.store, lease) as session:
        queue.finish(session, lease)
    assert things.job_now(job.id).state == JobState.CANCELLED
