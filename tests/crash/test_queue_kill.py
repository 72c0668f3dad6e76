"""Workers die and freeze at any moment; every piece of work is there in the end, and only once.

A piece of work here is an event, because events are the one thing that the store lets nobody write
twice by accident and nobody ignore when it comes twice: two writers of the same piece leave two.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from sqlalchemy import select

from app.domain.errors import LeaseLost
from app.domain.words import JobState
from app.store import events, queue
from app.store.queue import Lease
from app.store.store import Store
from app.store.tables import Job

pytestmark = pytest.mark.crash

JOBS = 30
PIECES = 6
WORKERS = 4
LEASE_SECONDS = 0.7
PIECE_SECONDS = 0.04
SHORTEST_SECONDS = 8.0
LONGEST_SECONDS = 60.0


def work(url: str, worker: int) -> None:
    """Claim and do jobs until killed. What a job has already written is not written again."""
    store = Store.open(url)
    while True:
        queue.reap(store)
        lease = queue.claim(store, worker, lease_seconds=LEASE_SECONDS)
        if lease is None:
            time.sleep(0.05)
            continue
        try:
            do(store, lease)
        except LeaseLost:
            continue


def do(store: Store, lease: Lease) -> None:
    topic = lease.payload["topic"]
    with store.read() as session:
        done = events.latest(session, topic)
    for piece in range(done, PIECES):
        time.sleep(PIECE_SECONDS)
        with queue.fenced(store, lease) as session:
            events.publish(session, topic, "piece", {"number": piece})
        queue.heartbeat(store, lease, lease_seconds=LEASE_SECONDS)
    with queue.fenced(store, lease) as session:
        events.publish(session, topic, "end", {"attempt": lease.attempt})
        queue.finish(session, lease)


@pytest.fixture
def processes() -> Iterator[list[BaseProcess]]:
    started: list[BaseProcess] = []
    yield started
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{tmp_path}/queue.db")
    opened.migrate()
    yield opened
    opened.dispose()


def test_nothing_is_lost_and_nothing_doubled(store: Store, processes: list[BaseProcess]) -> None:
    url = str(store.url)
    with store.write() as session:
        job_ids = [
            queue.enqueue(session, "analyse", {"topic": f"work {n}"}, max_attempts=1000).id
            for n in range(JOBS)
        ]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["app.store.queue"])

    def start(number: int) -> BaseProcess:
        process = context.Process(target=work, args=(url, number), daemon=True)
        process.start()
        processes.append(process)
        return process

    pool = [start(number) for number in range(WORKERS)]
    chance = random.Random(5)
    frozen: dict[int, float] = {}
    kills = freezes = 0
    began = time.monotonic()
    while time.monotonic() < began + LONGEST_SECONDS:
        time.sleep(chance.uniform(0.02, 0.15))
        for number, until in list(frozen.items()):
            if time.monotonic() > until:
                os.kill(pool[number].pid or 0, signal.SIGCONT)
                del frozen[number]
        if all_done(store) and time.monotonic() > began + 1:
            break
        if time.monotonic() > began + SHORTEST_SECONDS:
            continue  # enough: now let them come to an end
        victim = chance.choice([n for n in range(WORKERS) if n not in frozen])
        if chance.random() < 0.2 and len(frozen) < WORKERS - 2:
            os.kill(pool[victim].pid or 0, signal.SIGSTOP)
            frozen[victim] = time.monotonic() + 2 * LEASE_SECONDS
            freezes += 1
        else:
            pool[victim].kill()
            pool[victim].join()
            kills += 1
            pool[victim] = start(victim)

    with store.read() as session:
        jobs = [queue.get(session, job_id) for job_id in job_ids]
        written = [events.read_after(session, f"work {n}", 0) for n in range(JOBS)]
    assert {job.state for job in jobs} == {JobState.DONE}
    for found in written:
        pieces = [event.data["number"] for event in found if event.type == "piece"]
        assert pieces == list(range(PIECES))
        assert [event.type for event in found].count("end") == 1
    again = sum(job.attempt - 1 for job in jobs)
    print(f"{kills} killed, {freezes} frozen, {again} attempts lost")
    assert again > 0, "no worker was hit while it worked: the test has shown nothing"


def all_done(store: Store) -> bool:
    with store.read() as session:
        return session.scalar(select(Job.id).where(Job.state != JobState.DONE).limit(1)) is None


def hold_and_write_late(url: str, pipe: Connection) -> None:
    store = Store.open(url)
    lease = queue.claim(store, 1, lease_seconds=0.4)
    assert lease is not None
    pipe.send(os.getpid())
    pipe.recv()  # frozen here, past the end of the lease
    answers: list[str] = []
    try:
        with queue.fenced(store, lease) as session:
            events.publish(session, "work", "piece", {"by": "late"})
        answers.append("written")
    except LeaseLost:
        answers.append("refused")
    try:
        queue.heartbeat(store, lease)
        answers.append("extended")
    except LeaseLost:
        answers.append("refused")
    pipe.send(answers)


def test_a_worker_frozen_past_its_lease_writes_nothing(
    store: Store, processes: list[BaseProcess]
) -> None:
    with store.write() as session:
        job = queue.enqueue(session, "analyse", {})
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold_and_write_late, args=(str(store.url), theirs))
    process.start()
    processes.append(process)
    assert ours.poll(30)
    pid = ours.recv()
    os.kill(pid, signal.SIGSTOP)
    assert queue.claim(store, 2) is None
    deadline = time.monotonic() + 10
    while queue.reap(store) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    lease = queue.claim(store, 2)
    assert lease is not None
    assert (lease.job_id, lease.attempt) == (job.id, 2)
    ours.send("go on")
    os.kill(pid, signal.SIGCONT)
    assert ours.poll(30)
    assert ours.recv() == ["refused", "refused"]
    with queue.fenced(store, lease) as session:
        events.publish(session, "work", "piece", {"by": "rightful"})
        queue.finish(session, lease)
    with store.read() as session:
        assert [event.data for event in events.read_after(session, "work", 0)] == [
            {"by": "rightful"}
        ]
