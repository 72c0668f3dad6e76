"""Ready-made rows."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from app.domain.words import JobState, Status
from app.store import analyses, datasets, experiments, models, plans, queue
from app.store.blobs import Blobs
from app.store.queue import Lease
from app.store.store import Store
from app.store.tables import Analysis, Dataset, Experiment, Job, Model, Plan, Point


@dataclass
class Things:
    store: Store
    blobs: Blobs
    numbers: Any = field(default_factory=itertools.count)

    def blob(self, content: bytes | None = None) -> tuple[str, int]:
        with self.blobs.stage() as staged:
            staged.write(f"content {next(self.numbers)}".encode() if content is None else content)
            return self.blobs.commit(staged)

    def importing_model(self, content: bytes | None = None) -> Model:
        sha256, size = self.blob(content)
        with self.store.write() as session:
            return models.create(
                session, self.blobs, name="net", format="pt2", sha256=sha256, bytes=size
            )

    def importing_dataset(self, content: bytes | None = None) -> Dataset:
        sha256, size = self.blob(content)
        with self.store.write() as session:
            return datasets.create(
                session, self.blobs, name="digits", format="npz", sha256=sha256, bytes=size
            )

    def model(self, content: bytes | None = None) -> Model:
        """Imported."""
        return self._imported(Model, self.importing_model(content))

    def dataset(self, content: bytes | None = None) -> Dataset:
        """Imported."""
        return self._imported(Dataset, self.importing_dataset(content))

    def _imported(self, table: Any, row: Any) -> Any:
        with self.store.write() as session:
            stored = session.get_one(table, row.id)
            stored.status = Status.READY
            session.get_one(Job, row.job_id).state = JobState.DONE
        return stored

    def analysis(self, model: Model | None = None, dataset: Dataset | None = None, **how: Any):
        model = model or self.model()
        dataset = dataset or self.dataset()
        with self.store.write() as session:
            return analyses.create(
                session,
                model_id=model.id,
                dataset_id=dataset.id,
                **({"levels": [250_000, 500_000]} | how),
            )

    def plan(self, analysis: Analysis | None = None) -> Plan:
        analysis = analysis or self.analysis()
        with self.store.write() as session:
            return plans.create(
                session,
                analysis_id=analysis.id,
                criterion="magnitude",
                sparsities={"b.weight": 0.5, "a.weight": 0.25},
                predicted={"accuracy": 0.9},
            )

    def experiment(self, plan: Plan | None = None) -> Experiment:
        plan = plan or self.plan()
        with self.store.write() as session:
            return experiments.create(session, plan_id=plan.id, settings={"epochs": 2})

    def job(self, kind: str = "analyse", **how: Any) -> Job:
        with self.store.write() as session:
            return queue.enqueue(session, kind, how.pop("payload", {}), **how)

    def claim(self, worker: int = 1, **how: Any) -> Lease:
        lease = queue.claim(self.store, worker, **how)
        assert lease is not None
        return lease

    def job_now(self, job_id: int | None) -> Job:
        assert job_id is not None
        with self.store.read() as session:
            return queue.get(session, job_id)


def a_point(context: str, unit: str = "a.weight", level: int = 500_000, **how: Any) -> Point:
    values: dict[str, Any] = {
        "criterion": "magnitude",
        "size": 10,
        "removed": 5,
        "samples": 100,
        "correct": 80,
        "accuracy": 0.8,
        "loss": 0.5,
        "low": 0.7,
        "high": 0.9,
        "flips": 9,
        "lost": 5,
        "gained": 2,
    }
    return Point(context=context, unit=unit, level=level, **(values | how))
