"""What a worker does when its database, its disk or its task don't do what they should."""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from safetensors import SafetensorError
from sqlalchemy import event, text
from sqlalchemy.exc import SQLAlchemyError

from app.domain.cells import dataset_key
from app.domain.errors import ChildFailed
from app.domain.words import JobState
from app.settings import Settings
from app.store import queue, workers
from app.store import store as store_module
from app.store.queue import Lease
from app.store.store import Store
from app.store.tables import Job, Model, Worker
from tests.integration.store.things import Things
from tests.support.live import LiveServer, until
from tests.support.sample import Sample
from tests.support.walls import FakeWalls
from worker import loop as loop_module
from worker.context import JobContext
from worker.failures import describe
from worker.leftovers import Sweeper
from worker.limits import machine_memory
from worker.loop import WorkerLoop
from worker.sandbox.walls import Walls


class Scene:
    """A worker's loop in this process, whose tasks the test provides."""

    def __init__(self, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = Settings(data_dir=data_dir, lease_seconds=30.0)
        self.settings.make_private()
        self.store = Store.open(self.settings.database_url)
        self.store.migrate()
        self.tasks: dict[str, Callable[[JobContext], None]] = {}
        monkeypatch.setattr(loop_module, "TASKS", self.tasks)
        monkeypatch.setattr(loop_module, "TROUBLE_SECONDS", 0.05)
        self.walls = FakeWalls(data_dir / "children")
        self.loop = WorkerLoop(self.store, self.settings, cast(Walls, self.walls))
        self.things = Things(self.store, self.loop.blobs)
        self.thread = threading.Thread(target=self.loop.run, daemon=True)

    def job(self, job_id: int | None) -> Job:
        assert job_id is not None
        with self.store.read() as session:
            return queue.get(session, job_id)

    def stop(self) -> None:
        self.loop.stopping.set()
        if self.thread.is_alive():
            self.thread.join(10)
        assert not self.thread.is_alive()
        self.store.dispose()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(tmp_path / "data", monkeypatch)
    yield made
    made.stop()


def test_a_full_database_ends_the_job_and_not_the_worker(scene: Scene) -> None:
    room = {"pages": 10**6}

    def checkout(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count={room['pages']}")

    event.listen(scene.store._writer, "checkout", checkout)

    def fill(context: JobContext) -> None:
        room["pages"] = 1  # SQLite keeps what is there and refuses every further page
        with context.write() as session:
            row = session.get_one(Model, context.payload["model_id"])
            row.name = "x" * 2_000_000

    scene.tasks["import-model"] = fill
    scene.tasks["import-dataset"] = lambda context: None
    model = scene.things.importing_model()
    scene.thread.start()
    until(lambda: scene.job(model.job_id).state == JobState.FAILED, seconds=20)
    error = scene.job(model.job_id).error
    assert error is not None
    assert error["code"] == "storage-full"
    room["pages"] = 10**6
    dataset = scene.things.importing_dataset()
    until(lambda: scene.job(dataset.job_id).state == JobState.DONE, seconds=20)
    scene.tasks["import-model"] = lambda context: None
    with scene.store.write() as session:
        queue.retry(session, model.job_id)
    until(lambda: scene.job(model.job_id).state == JobState.DONE, seconds=20)


def test_the_end_of_a_job_is_written_when_there_is_room_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    fail = queue.fail

    def refused_twice(session: Any, lease: Lease, error: dict[str, Any]) -> None:
        tried.append(lease.job_id)
        if len(tried) <= 2:
            raise store_module.StorageFull("The database can't grow because its disk is full.")
        fail(session, lease, error)

    def broken(context: JobContext) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(queue, "fail", refused_twice)
    scene.tasks["import-model"] = broken
    model = scene.things.importing_model()
    scene.thread.start()
    until(lambda: scene.job(model.job_id).state == JobState.FAILED, seconds=20)
    found = scene.job(model.job_id)
    assert (found.error or {})["code"] == "storage-full"
    assert found.attempt == 1
    assert len(tried) == 3


def test_a_locked_database_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BUSY_TIMEOUT_SECONDS", 0.2)
    scene = Scene(tmp_path / "data", monkeypatch)
    done: list[int] = []
    scene.tasks["import-model"] = lambda context: done.append(context.lease.attempt)
    model = scene.things.importing_model()
    with closing(sqlite3.connect(scene.settings.data_dir / "prunescope.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(store_module.Busy), scene.store.write():
            pass
        scene.thread.start()
        time.sleep(1.0)
        assert scene.thread.is_alive()
        assert not done
        other.rollback()
    until(lambda: scene.job(model.job_id).state == JobState.DONE, seconds=20)
    assert done == [1]
    scene.stop()


def test_a_cancel_reaches_a_child_at_work(scene: Scene) -> None:
    begun = threading.Event()
    scene.tasks["import-model"] = waiting(begun)
    model = scene.things.importing_model()
    scene.thread.start()
    assert begun.wait(10)
    started = time.monotonic()
    with scene.store.write() as session:
        queue.request_cancel(session, model.job_id)
    until(lambda: scene.job(model.job_id).state == JobState.CANCELLED, seconds=20)
    assert time.monotonic() - started < 2
    assert scene.thread.is_alive()


def test_a_worker_told_to_stop_hands_its_job_back(scene: Scene) -> None:
    begun = threading.Event()
    scene.tasks["import-model"] = waiting(begun)
    model = scene.things.importing_model()
    scene.thread.start()
    assert begun.wait(10)
    scene.loop.stopping.set()
    scene.thread.join(10)
    found = scene.job(model.job_id)
    assert (found.state, found.attempt) == (JobState.QUEUED, 0)
    with scene.store.read() as session:
        assert session.get(Worker, scene.loop.worker_id) is None


def waiting(begun: threading.Event) -> Callable[[JobContext], None]:
    """A task whose child works until it is stopped."""

    def task(context: JobContext) -> None:
        begun.set()
        while True:
            context.check()
            time.sleep(0.05)

    return task


@pytest.mark.parametrize(
    ("number", "attempts"),
    [(signal.SIGKILL, 3), (signal.SIGTERM, 3), (signal.SIGSEGV, 2), (signal.SIGSYS, 1), (None, 1)],
)
def test_a_child_killed_is_tried_again_a_crash_once_more_and_a_fault_never(
    scene: Scene, number: int | None, attempts: int
) -> None:
    tried: list[int] = []

    def dying(context: JobContext) -> None:
        tried.append(context.lease.attempt)
        failed = ChildFailed("The computation crashed.", "Retry the job.")
        failed.signal = number
        raise failed

    scene.tasks["import-model"] = dying
    scene.tasks["import-dataset"] = lambda context: None
    model, dataset = scene.things.importing_model(), scene.things.importing_dataset()
    scene.thread.start()
    until(lambda: scene.job(dataset.job_id).state == JobState.DONE, seconds=20)
    found = scene.job(model.job_id)
    assert found.state == JobState.FAILED
    assert found.error == {
        "code": "crashed",
        "message": "The computation crashed.",
        "hint": "Retry the job.",
    }
    assert tried == list(range(1, attempts + 1))


def test_a_child_killed_once_does_no_harm(scene: Scene) -> None:
    def dying_once(context: JobContext) -> None:
        if context.lease.attempt == 1:
            failed = ChildFailed("The computation was ended by the system.")
            failed.signal = signal.SIGKILL
            raise failed

    scene.tasks["import-model"] = dying_once
    model = scene.things.importing_model()
    scene.thread.start()
    until(lambda: scene.job(model.job_id).state == JobState.DONE, seconds=20)
    with scene.store.read() as session:
        assert session.get_one(Model, model.id).error is None


def test_workers_say_how_their_children_are_locked_in(scene: Scene) -> None:
    with scene.store.read() as session:
        row = session.get_one(Worker, scene.loop.worker_id)
    assert row.isolation == FakeWalls.isolation.level


def test_a_worker_process_loads_no_torch(server: LiveServer, sample: Sample) -> None:
    """Not when it starts, and not by what it does: only its children have it."""

    def has_torch(process: psutil.Process) -> bool:
        return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()

    with server.client() as client:
        handle = client.push_files(sample.model_path, sample.dataset_path, sparsities=[0.5])
        handle.wait(timeout_seconds=120)
    (worker,) = server.workers()
    assert not has_torch(worker)
    assert any(has_torch(child) for child in worker.children(recursive=True))


@pytest.mark.parametrize("asked", [True, False])
def test_jobs_of_workers_that_are_no_more_are_free_at_once(scene: Scene, asked: bool) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    if not asked:  # then it is a zombie, as everything is in a container without an init process
        os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
    else:
        gone.wait()
    model = scene.things.importing_model()
    with scene.store.write() as session:
        dead = workers.register(session, pid=gone.pid)
        alive = workers.register(session)
        elsewhere = workers.register(session, pid=gone.pid, host="another-machine")
    assert queue.claim(scene.store, dead) is not None
    assert workers.bury_dead(scene.store) == 1
    assert scene.job(model.job_id).state == JobState.QUEUED
    with scene.store.read() as session:
        assert session.get(Worker, dead) is None
        assert session.get(Worker, alive) is not None
        assert session.get(Worker, elsewhere) is not None
    gone.wait()


def test_what_nobody_wants_any_more_is_swept_away(scene: Scene) -> None:
    dataset = scene.things.dataset()
    experiment = scene.things.experiment()
    work = scene.settings.data_dir / "work"
    key = dataset_key(dataset.sha256, dataset.task, dataset.options)
    kept = [work / "datasets" / key, work / "experiments" / str(experiment.id)]
    begun = scene.settings.data_dir / "cache" / "tmpnew"
    old = scene.settings.data_dir / "cache" / "tmpold"
    other = dataset_key(dataset.sha256, dataset.task, {"layout": "NHWC"})
    lost = [work / "datasets" / other, work / "experiments" / "999", dead_childs_folder(work)]
    for folder in [*kept, *lost, begun, old]:
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"bytes")
    os.utime(old, (1, 1))
    Sweeper(scene.store, scene.loop.blobs, scene.settings.data_dir).sweep()
    assert all((folder / "file").exists() for folder in [*kept, begun])
    assert not any(folder.exists() for folder in [*lost, old])
    with scene.store.write() as session:
        session.get_one(Job, experiment.job_id).state = JobState.DONE
    Sweeper(scene.store, scene.loop.blobs, scene.settings.data_dir).sweep()
    assert not kept[1].exists()


def dead_childs_folder(work: Path) -> Path:
    """As walls name those of a worker that is no more."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return work / "inside" / f"{gone.pid}-1-0000abcd"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        # As safetensors and torch.save say it, without a number.
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_is_recognised_whoever_met_it(error: Exception) -> None:
    assert describe(error)["code"] == "storage-full"


def test_other_troubles_with_files_are_no_full_disk() -> None:
    for error in (OSError(errno.EIO, "os error 28"), SafetensorError("header too large")):
        assert describe(error)["code"] == "internal"


def test_errors_name_no_folder_of_this_machine_and_no_sql(scene: Scene) -> None:
    with pytest.raises(OSError, match="srv") as missing:
        Path("/srv/of-mine/work/x.bin").read_bytes()
    with pytest.raises(SQLAlchemyError) as wrong, scene.store.write() as session:
        session.execute(text("SELECT hidden"))
    for error in (missing.value, wrong.value):
        said = describe(error)
        assert said["code"] == "internal"
        assert "srv" not in said["message"]
        assert "SELECT" not in said["message"]
        assert type(error).__name__ in said["message"]


def test_memory_that_the_machine_does_not_have_is_refused_in_words(tmp_path: Path) -> None:
    script = tmp_path / "greedy.py"
    script.write_text(
        "import json, torch\n"
        "from worker.failures import describe\n"
        "from worker.limits import limit_memory\n"
        "limit_memory(2 << 30)\n"
        "torch.ones(1 << 20)\n"
        "try:\n"
        "    torch.ones(1 << 30)\n"
        "except Exception as error:\n"
        "    print(json.dumps(describe(error)))\n"
    )
    ended = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    said = json.loads(ended.stdout)
    assert said["code"] == "out-of-memory"
    assert said["hint"]


def test_a_worker_takes_no_more_than_there_is(server: LiveServer) -> None:
    (worker,) = until(server.workers, what="a worker")
    soft = until(
        lambda: [
            int(line.split()[3])
            for line in Path(f"/proc/{worker.pid}/limits").read_text().splitlines()
            if line.startswith("Max data size") and line.split()[3] != "unlimited"
        ],
        what="its limit",
    )
    assert 0 < soft[0] <= machine_memory() * 0.9
    assert worker.nice() >= 10
    assert int(Path(f"/proc/{worker.pid}/oom_score_adj").read_text()) >= 500
