"""Files that nobody will ever want again: removed by whichever worker has nothing to do."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.domain.cells import dataset_key
from app.domain.words import JobState
from app.store.blobs import Blobs
from app.store.store import Store
from app.store.tables import Dataset, Experiment, Job
from worker.sandbox.folders import remove_leftovers

EVERY_SECONDS = 60.0
STALE_SECONDS = 3600.0


@dataclass
class Sweeper:
    """Removes unpacked copies of deleted data sets, training states of deleted or finished
    experiments, what children of dead workers had begun, uploads whose server died, and checkpoints
    that a dead server had begun."""

    store: Store
    blobs: Blobs
    data_dir: Path
    next_at: float = 0.0

    def sweep_now_and_then(self) -> None:
        if time.monotonic() >= self.next_at:
            self.next_at = time.monotonic() + EVERY_SECONDS
            with suppress(OSError, SQLAlchemyError):
                self.sweep()

    def sweep(self) -> None:
        # What is there is listed before it is asked who wants it: never the other way round.
        datasets = _folders(self.data_dir / "work" / "datasets")
        experiments = _folders(self.data_dir / "work" / "experiments")
        if datasets or experiments:
            with self.store.read() as session:
                files = select(Dataset.sha256, Dataset.task, Dataset.options)
                keys = {dataset_key(*row) for row in session.execute(files)}
                ended = select(Job.id).where(Job.state == JobState.DONE)
                going = session.scalars(
                    select(Experiment.id).where(Experiment.job_id.not_in(ended))
                )
                wanted = {str(experiment_id) for experiment_id in going}
            _remove(path for path in datasets if path.name not in keys)
            _remove(path for path in experiments if path.name not in wanted)
        begun = [p for p in _folders(self.data_dir / "cache") if p.name.startswith("tmp")]
        _remove(path for path in begun if _is_old(path))
        for taken in _files(self.data_dir / "work" / "taken"):
            if _is_old(taken):
                taken.unlink(missing_ok=True)
        inside = inside_folder(self.data_dir)
        if inside.is_dir():
            remove_leftovers(inside)
        self.blobs.remove_leftovers()


def inside_folder(data_dir: Path) -> Path:
    """Where children write, each in a folder of its own."""
    return data_dir / "work" / "inside"


def _is_old(path: Path) -> bool:
    return path.stat().st_mtime < time.time() - STALE_SECONDS


def _files(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_file()] if parent.is_dir() else []


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
