"""Experiments, their runs, and where each run stood after each epoch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import inspect as inspected
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.errors import NotFound
from app.domain.words import JobKind
from app.store import deletion, dialects, plans, queue
from app.store.blobs import Blobs, drop_unreferenced
from app.store.clock import now
from app.store.events import experiment_topic
from app.store.paging import Page, paged
from app.store.store import Store
from app.store.tables import Epoch, Experiment, Run


def create(session: Session, *, plan_id: int, settings: dict[str, Any]) -> Experiment:
    """An experiment, and the queued job that runs it (payload `{experiment_id}`). Raises NotFound.

    `settings` are the request's: schedule, epochs, batch_size, learning_rate, baselines, seed …
    """
    plans.get(session, plan_id)
    experiment = Experiment(plan_id=plan_id, settings=settings, created_at=now(session))
    session.add(experiment)
    session.flush()
    job = queue.enqueue(
        session,
        JobKind.RETRAIN,
        {"experiment_id": experiment.id},
        subject=("experiment", experiment.id),
        topic=experiment_topic(experiment.id),
    )
    experiment.job_id = job.id
    session.flush()
    return experiment


def get(session: Session, experiment_id: int) -> Experiment:
    """Raises NotFound."""
    experiment = session.get(Experiment, experiment_id)
    if experiment is None:
        raise NotFound(f"There is no experiment {experiment_id}.", "It may have been deleted.")
    return experiment


def listing(
    session: Session,
    *,
    limit: int = 50,
    cursor: str | None = None,
    plan_id: int | None = None,
) -> Page[Experiment]:
    """Experiments, newest first, of one plan if asked."""
    statement = select(Experiment)
    if plan_id is not None:
        statement = statement.where(Experiment.plan_id == plan_id)
    return paged(session, statement, Experiment.id, limit, cursor)


def ensure_run(
    session: Session,
    experiment_id: int,
    name: str,
    position: int,
    sparsities: dict[str, float] | None = None,
) -> Run:
    """The experiment's run of this name, made when a first attempt gets to it."""
    dialects.insert_missing(
        session,
        Run,
        [
            {
                "experiment_id": experiment_id,
                "name": name,
                "position": position,
                "sparsities": sparsities,
            }
        ],
        ("experiment_id", "name"),
    )
    statement = select(Run).where(Run.experiment_id == experiment_id, Run.name == name)
    return session.scalars(statement).one()


def runs(session: Session, experiment_id: int) -> Sequence[Run]:
    """The runs so far, by position."""
    statement = select(Run).where(Run.experiment_id == experiment_id)
    return session.scalars(statement.order_by(Run.position, Run.id)).all()


def get_run(session: Session, experiment_id: int, name: str) -> Run:
    """Raises NotFound, naming the runs that there are."""
    there = runs(session, experiment_id)
    for run in there:
        if run.name == name:
            return run
    names = ", ".join(run.name for run in there) or "none yet"
    raise NotFound(
        f"Experiment {experiment_id} has no run named {name!r}.", f"Its runs are: {names}."
    )


def put_epoch(session: Session, run_id: int, figures: Mapping[str, Any]) -> None:
    """Store an epoch's figures (the columns of Epoch), instead of those of an attempt that died."""
    columns = [column.key for column in inspected(Epoch).columns if column.key != "run_id"]
    unknown = set(figures) - set(columns)
    if unknown:
        raise ValueError(f"an epoch has no {sorted(unknown)}")
    row = {"created_at": now(session), **figures, "run_id": run_id}
    statement = dialects.insert(session, Epoch).values(**row)
    changed = {name: statement.excluded[name] for name in row if name in columns}
    session.execute(
        statement.on_conflict_do_update(index_elements=["run_id", "step", "epoch"], set_=changed)
    )


def trajectory(session: Session, run_id: int) -> Sequence[Epoch]:
    """The run's epochs, in order."""
    return trajectories(session, [run_id])[run_id]


def trajectories(session: Session, run_ids: Collection[int]) -> dict[int, list[Epoch]]:
    """The epochs of several runs, by the run's id, in order; each id has a list."""
    found: dict[int, list[Epoch]] = {run_id: [] for run_id in run_ids}
    statement = select(Epoch).where(Epoch.run_id.in_(run_ids))
    for row in session.scalars(statement.order_by(Epoch.step, Epoch.epoch)):
        found[row.run_id].append(row)
    return found


def delete(store: Store, blobs: Blobs, experiment_id: int, *, cascade: bool = False) -> None:
    """Delete an experiment, its runs, and their checkpoints unless another run has the same.

    Raises NotFound, and without `cascade` Conflict while a job is working on it.
    """
    with store.write() as session:
        experiment = get(session, experiment_id)
        hashes = deletion.delete_experiment(session, experiment, cascade=cascade)
    drop_unreferenced(store, blobs, hashes)
