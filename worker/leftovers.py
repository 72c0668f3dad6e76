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

from app.domain.words import JobState
from app.store.blobs import Blobs
from app.store.store import Store
from app.store.tables import Dataset, Experiment, Job

EVERY_SECONDS = 60.0
STALE_SECONDS = 3600.0


@dataclass
class Sweeper:
    """Removes unpacked copies of deleted data sets, training states of deleted or finished
    experiments, uploads whose server died, and checkpoints that a dead server had begun."""

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
                hashes = set(session.scalars(select(Dataset.sha256)))
                ended = select(Job.id).where(Job.state == JobState.DONE)
                going = session.scalars(
                    select(Experiment.id).where(Experiment.job_id.not_in(ended))
                )
                wanted = {str(experiment_id) for experiment_id in going}
            _remove(path for path in datasets if path.name not in hashes)
            _remove(path for path in experiments if path.name not in wanted)
        limit = time.time() - STALE_SECONDS
        begun = (path for path in _folders(self.data_dir / "cache") if path.name.startswith("tmp"))
        _remove(path for path in begun if path.stat().st_mtime < limit)
        self.blobs.remove_leftovers()


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
