"""Any order of claims, heartbeats, deaths, cancels and retries, against a model of the queue."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from app.domain.errors import Conflict, LeaseLost
from app.domain.words import JobState, Priority
from app.store import queue, steering
from app.store.queue import Lease
from app.store.store import Store
from tests.integration.store.conftest import HandClock

LEASE = 60


@dataclass
class Expected:
    """What the rules of the queue say about one job."""

    priority: int
    max_attempts: int
    state: JobState = JobState.QUEUED
    attempt: int = 0
    token: str | None = None
    expires: float = 0.0
    stopping: bool = False
    paused: bool = False
    asked: int = 0

    def back(self) -> None:
        if self.stopping:
            self.end(JobState.CANCELLED)
        self.token = None
        self.state = JobState.CANCELLED if self.stopping else JobState.QUEUED

    def end(self, state: JobState) -> None:
        self.token = None
        self.state = state
        self.paused = False


class QueueMachine(RuleBasedStateMachine):
    leases: Bundle[Lease] = Bundle("leases")
    jobs: Bundle[int] = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = HandClock()
        self.store = Store.open(f"sqlite:///{Path(self.folder.name)}/q.db", clock=self.clock)
        self.store.migrate()
        self.expected: dict[int, Expected] = {}
        self.time = 0.0

    def teardown(self) -> None:
        self.store.dispose()
        self.folder.cleanup()

    def holder(self, lease: Lease) -> Expected | None:
        job = self.expected[lease.job_id]
        return job if job.token == lease.token else None

    @rule(target=jobs, priority=st.integers(-1, 1), attempts=st.integers(1, 3))
    def enqueue(self, priority: int, attempts: int) -> int:
        with self.store.write() as session:
            job = queue.enqueue(session, "analyse", {}, priority=priority, max_attempts=attempts)
        self.expected[job.id] = Expected(priority, attempts)
        return job.id

    @rule(target=leases)
    def claim(self) -> Lease:
        waiting = [
            (-job.priority, job_id)
            for job_id, job in self.expected.items()
            if job.state == "queued" and not job.paused
        ]
        lease = queue.claim(self.store, 1, lease_seconds=LEASE)
        if not waiting:
            assert lease is None
            return Lease(next(iter(self.expected), 0), "analyse", {}, "none", 0, None)
        assert lease is not None
        assert lease.job_id == min(waiting)[1]
        job = self.expected[lease.job_id]
        job.state, job.token, job.expires = JobState.RUNNING, lease.token, self.time + LEASE
        job.attempt += 1
        assert lease.attempt == job.attempt
        return lease

    @rule(lease=leases)
    def heartbeat(self, lease: Lease) -> None:
        if lease.job_id not in self.expected:
            return
        job = self.holder(lease)
        if job is None:
            with pytest.raises(LeaseLost):
                queue.heartbeat(self.store, lease, lease_seconds=LEASE)
        else:
            asked = queue.heartbeat(self.store, lease, lease_seconds=LEASE)
            assert asked == job.stopping
            job.expires = self.time + LEASE

    @rule(lease=leases, how=st.sampled_from(["finish", "fail", "mark_cancelled", "release"]))
    def end(self, lease: Lease, how: str) -> None:
        if lease.job_id not in self.expected:
            return
        job = self.holder(lease)
        refused = pytest.raises(LeaseLost) if job is None else contextlib.nullcontext()
        with refused, queue.fenced(self.store, lease) as session:
            extra = ({"code": "x", "message": "m", "hint": ""},) if how == "fail" else ()
            getattr(queue, how)(session, lease, *extra)
        if job is None:
            return
        if how == "release":
            job.attempt -= 1
            job.back()
        elif how == "finish" and lease.payload.get("round", 0) != job.asked:
            job.attempt = 0
            job.back()
        else:
            ends = {"finish": JobState.DONE, "fail": JobState.FAILED}
            job.end(ends.get(how, JobState.CANCELLED))

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def wait(self, seconds: int) -> None:
        self.clock.forward(seconds)
        self.time += seconds

    @rule()
    def reap(self) -> None:
        dead = [
            job
            for job in self.expected.values()
            if job.state == "running" and job.expires < self.time
        ]
        assert queue.reap(self.store) == len(dead)
        for job in dead:
            if job.attempt >= job.max_attempts and not job.stopping:
                job.end(JobState.FAILED)
            else:
                job.back()

    @rule(job_id=jobs)
    def cancel(self, job_id: int) -> None:
        job = self.expected[job_id]
        refused = pytest.raises(Conflict) if job.state.finished else contextlib.nullcontext()
        with refused, self.store.write() as session:
            queue.request_cancel(session, job_id)
        if job.state == JobState.QUEUED:
            job.end(JobState.CANCELLED)
        elif job.state == JobState.RUNNING:
            job.stopping = True

    @rule(job_id=jobs, what=st.sampled_from(["pause", "resume"]))
    def rest(self, job_id: int, what: str) -> None:
        job = self.expected[job_id]
        refused = pytest.raises(Conflict) if job.state.finished else contextlib.nullcontext()
        with refused, self.store.write() as session:
            getattr(steering, what)(session, job_id)
        if not job.state.finished:
            job.paused = what == "pause"

    @rule(job_id=jobs, word=st.sampled_from(list(Priority)))
    def prefer(self, job_id: int, word: Priority) -> None:
        job = self.expected[job_id]
        refused = pytest.raises(Conflict) if job.state.finished else contextlib.nullcontext()
        with refused, self.store.write() as session:
            steering.set_priority(session, job_id, word)
        if not job.state.finished:
            job.priority = {"low": -1, "normal": 0, "high": 1}[word]

    @rule(job_id=jobs)
    def ask_for_more(self, job_id: int) -> None:
        job = self.expected[job_id]
        with self.store.write() as session:
            steering.ask_for_more(session, job_id)
        job.asked += 1
        if job.state.finished:
            job.state, job.attempt, job.stopping = JobState.QUEUED, 0, False

    @rule(lease=leases)
    def listen(self, lease: Lease) -> None:
        job = self.holder(lease) if lease.job_id in self.expected else None
        if job is not None:
            wanted = job.paused or lease.payload.get("round", 0) != job.asked
            assert queue.handing_back(self.store, lease) == wanted

    @rule(job_id=consumes(jobs), target=jobs)
    def retry(self, job_id: int) -> int:
        job = self.expected[job_id]
        fine = job.state in (JobState.FAILED, JobState.CANCELLED)
        with (
            contextlib.nullcontext() if fine else pytest.raises(Conflict),
            self.store.write() as session,
        ):
            queue.retry(session, job_id)
        if fine:
            job.state, job.attempt, job.stopping = JobState.QUEUED, 0, False
        return job_id

    @invariant()
    def the_database_agrees(self) -> None:
        with self.store.read() as session:
            rows = queue.get_many(session, list(self.expected))
        assert set(rows) == set(self.expected)
        for job_id, job in self.expected.items():
            row = rows[job_id]
            assert (row.state, row.attempt, row.lease_token) == (job.state, job.attempt, job.token)
            assert (row.paused, row.priority) == (job.paused, job.priority)
            assert (row.finished_at is not None) == job.state.finished
            assert (row.lease_expires_at is not None) == (job.state == JobState.RUNNING)


QueueMachine.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestQueueMachine = QueueMachine.TestCase
