"""Plans with their measurements."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store import plans as store_plans
from app.store.tables import Plan
from app.web.paging import Paging, fetch
from app.web.views.analyses import plan_view
from app.web.views.common import JSON


def view(session: Session, row: Plan) -> JSON:
    return plan_view(row, store_plans.measurements(session, row.id))


def list_plans(
    session: Session, asked: Paging, analysis_id: int | None = None
) -> tuple[list[JSON], str | None]:
    statement = select(Plan)
    if analysis_id is not None:
        statement = statement.where(Plan.analysis_id == analysis_id)
    rows, cursor = fetch(session, statement, Plan.id, asked)
    plans = [row[0] for row in rows]
    measured = store_plans.measurements_of(session, [plan.id for plan in plans])
    return [plan_view(plan, measured[plan.id]) for plan in plans], cursor


def result_facts(session: Session, row: Plan) -> dict[str, Any]:
    """What a file made from this plan depends on beside the plan, which never changes itself."""
    return {"measurements": [each.id for each in store_plans.measurements(session, row.id)]}
