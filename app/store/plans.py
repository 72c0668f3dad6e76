"""Plans and what was measured of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.errors import NotFound
from app.domain.words import JobKind, JobState
from app.store import analyses, deletion, queue
from app.store.blobs import Blobs, drop_unreferenced
from app.store.clock import now
from app.store.events import analysis_topic
from app.store.paging import Page, paged
from app.store.store import Store
from app.store.tables import Job, Measurement, Plan


def create(
    session: Session,
    *,
    analysis_id: int,
    criterion: str,
    sparsities: dict[str, float],
    predicted: dict[str, Any],
    name: str | None = None,
) -> Plan:
    """A plan. Raises NotFound for an unknown analysis."""
    analyses.get(session, analysis_id)
    plan = Plan(
        analysis_id=analysis_id,
        criterion=criterion,
        name=name,
        sparsities=sparsities,
        predicted=predicted,
        created_at=now(session),
    )
    session.add(plan)
    session.flush()
    return plan


def get(session: Session, plan_id: int) -> Plan:
    """Raises NotFound."""
    plan = session.get(Plan, plan_id)
    if plan is None:
        raise NotFound(f"There is no plan {plan_id}.", "It may have been deleted.")
    return plan


def get_many(session: Session, plan_ids: Collection[int]) -> dict[int, Plan]:
    """The plans with these ids, by id; unknown ones are left out."""
    return {row.id: row for row in session.scalars(select(Plan).where(Plan.id.in_(plan_ids)))}


def listing(
    session: Session,
    *,
    limit: int = 50,
    cursor: str | None = None,
    analysis_id: int | None = None,
) -> Page[Plan]:
    """Plans, newest first, of one analysis if asked."""
    statement = select(Plan)
    if analysis_id is not None:
        statement = statement.where(Plan.analysis_id == analysis_id)
    return paged(session, statement, Plan.id, limit, cursor)


def request_measurement(session: Session, plan_id: int, split: str) -> Job:
    """The job that measures the plan on `split` (payload `{plan_id, split}`).

    One that is still queued or running is given back instead of a second. Raises NotFound.
    """
    plan = get(session, plan_id)
    pending = session.scalars(
        select(Job).where(
            Job.kind == JobKind.MEASURE,
            Job.subject_kind == "plan",
            Job.subject_id == plan_id,
            Job.state.in_([JobState.QUEUED, JobState.RUNNING]),
            Job.cancel_requested.is_(False),
        )
    )
    for job in pending:
        if job.payload.get("split") == split:
            return job
    return queue.enqueue(
        session,
        JobKind.MEASURE,
        {"plan_id": plan_id, "split": split},
        subject=("plan", plan_id),
        topic=analysis_topic(plan.analysis_id),
        priority=queue.SHORT_JOB_PRIORITY,
    )


def measurements(session: Session, plan_id: int) -> Sequence[Measurement]:
    """What was measured of the plan, oldest first."""
    return measurements_of(session, [plan_id])[plan_id]


def measurements_of(session: Session, plan_ids: Collection[int]) -> dict[int, list[Measurement]]:
    """What was measured of several plans, by the plan's id, oldest first; each id has a list."""
    found: dict[int, list[Measurement]] = {plan_id: [] for plan_id in plan_ids}
    statement = select(Measurement).where(Measurement.plan_id.in_(plan_ids))
    for row in session.scalars(statement.order_by(Measurement.id)):
        found[row.plan_id].append(row)
    return found


def find_measurement(session: Session, plan_id: int, split: str) -> Measurement | None:
    """The latest measurement of the plan on `split`."""
    statement = (
        select(Measurement)
        .where(Measurement.plan_id == plan_id, Measurement.split == split)
        .order_by(Measurement.id.desc())
        .limit(1)
    )
    return session.scalar(statement)


def measurement_json(row: Measurement) -> dict[str, Any]:
    """One entry of a plan's `measurements`, and what a `measurement` event carries."""
    return {
        "split": row.split,
        "accuracy": row.accuracy,
        "loss": row.loss,
        "low": row.low,
        "high": row.high,
        "samples": row.samples,
        "confidence": row.confidence,
        "sparsity": row.sparsity,
        "flips": row.flips,
        "lost": row.lost,
        "gained": row.gained,
        "metrics": row.metrics or {},
        "baseline": row.baseline,
    }


def delete(store: Store, blobs: Blobs, plan_id: int, *, cascade: bool = False) -> None:
    """Delete a plan and its measurements.

    Raises NotFound, and without `cascade` Conflict while experiments or a running job depend on it.
    """
    with store.write() as session:
        hashes = deletion.delete_plan(session, get(session, plan_id), cascade=cascade)
    drop_unreferenced(store, blobs, hashes)
