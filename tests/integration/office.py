"""A worker's desk without a worker: real rows, real leases, and children that a test provides."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from sqlalchemy import func, select

from app.domain.words import Status
from app.settings import Settings
from app.store import experiments, plans, queue
from app.store.blobs import Blobs
from app.store.store import Store
from app.store.tables import Base, Dataset, Experiment, Job, Model
from tests.integration.store.things import Things
from tests.support.walls import FakeWalls
from worker.context import JobContext
from worker.crew import Crew
from worker.sandbox.walls import Walls
from worker.tasks import TASKS

SAMPLES = {"train": 60, "tune": 40, "test": 50}
SIZES = {"a.weight": 100, "b.weight": 20}


def a_unit(name: str, size: int, prunable: bool = True) -> dict[str, Any]:
    return {
        "id": name,
        "size": size,
        "shape": [size // 10, 10],
        "members": [name],
        "layer": name.rpartition(".")[0],
        "macs": 0,
        "itemsize": 4,
        "prunable": prunable,
        "reason": None if prunable else "It is a vector.",
    }


@cache
def empty_database() -> bytes:
    """Migrating takes longer than most of these tests."""
    with TemporaryDirectory() as folder:
        store = Store.open(f"sqlite:///{folder}/empty.db")
        store.migrate()
        store.dispose()
        return (Path(folder) / "empty.db").read_bytes()


class Office:
    def __init__(self, data_dir: Path) -> None:
        self.settings = Settings(data_dir=data_dir, lease_seconds=60.0)
        self.settings.make_private()
        (data_dir / "prunescope.db").write_bytes(empty_database())
        self.store = Store.open(self.settings.database_url)
        self.blobs = Blobs(self.settings.blob_url, self.settings.data_dir)
        self.things = Things(self.store, self.blobs)
        self.walls = FakeWalls(data_dir / "children")

    def run(self, crew: Crew | None = None) -> None:
        """Do the next job, to its end or to whatever it raises; with one child unless told."""
        lease = queue.claim(self.store, 1)
        assert lease is not None
        walls = cast(Walls, self.walls)
        context = JobContext(self.store, self.blobs, self.settings, walls, lease, crew=crew)
        TASKS[lease.kind](context)
        with queue.fenced(self.store, lease) as session:
            queue.finish(session, lease)

    def give_up(self) -> None:
        """End whatever runs, so that the next job is another."""
        with self.store.write() as session:
            for job in session.scalars(select(Job).where(Job.finished_at.is_(None))):
                job.state = job.state.FAILED

    def rows(self) -> dict[str, int]:
        """How many there are of each noun that tasks write, without jobs and topics."""
        with self.store.read() as session:
            found = {
                table.name: session.scalar(select(func.count()).select_from(table)) or 0
                for table in Base.metadata.sorted_tables
                if table.name in ("baseline", "point", "measurement", "run", "epoch")
            }
        return {name: count for name, count in found.items() if count}

    def stored_blobs(self) -> set[str]:
        root = self.settings.data_dir / "blobs"
        return {path.name for path in root.rglob("*") if path.is_file()}

    def model(self) -> Model:
        made = self.things.model()
        with self.store.write() as session:
            row = session.get_one(Model, made.id)
            units = [a_unit(name, size) for name, size in SIZES.items()]
            row.units = {"weight": [*units, a_unit("a.bias", 10, False)], "channel": []}
            row.parameters, row.macs, row.state_bytes = 130, 0, 520
            row.details = {"kind": "network", "notes": []}
        return row

    def dataset(self, **details: Any) -> Dataset:
        made = self.things.dataset()
        with self.store.write() as session:
            row = session.get_one(Dataset, made.id)
            row.splits, row.classes, row.status = dict(SAMPLES), 4, Status.READY
            row.details = {"prepared": False} | details
        return row

    def analysis(self, model: Model | None = None, dataset: Dataset | None = None) -> Any:
        return self.things.analysis(model or self.model(), dataset or self.dataset())

    def measurement(self) -> int:
        """A queued measurement; the plan's id."""
        analysis = self.analysis()
        self.give_up()
        plan = self.things.plan(analysis)
        with self.store.write() as session:
            plans.request_measurement(session, plan.id, "tune")
        return plan.id

    def experiment(self, epochs: int = 2, baselines: tuple[str, ...] = ()) -> Experiment:
        analysis = self.analysis()
        self.give_up()
        plan = self.things.plan(analysis)
        wanted = {
            "epochs": epochs,
            "batch_size": 8,
            "learning_rate": 0.1,
            "seed": 0,
            "baselines": list(baselines),
        }
        with self.store.write() as session:
            return experiments.create(session, plan_id=plan.id, settings=wanted)
