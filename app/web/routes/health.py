"""GET /healthz: quick, open to all, and says nothing that is worth hiding."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse

from app.domain.words import JobState
from app.store import queue, workers
from app.web.answers import Health
from app.web.services import Given

router = APIRouter(tags=["health"])
log = logging.getLogger("prunescope.web")

WAITING = (JobState.QUEUED, JobState.RUNNING)


@router.get("/healthz", responses={200: {"model": Health}, 503: {"model": Health}})
def healthz(given: Given) -> JSONResponse:
    """Whether the server can work: its database, the workers seen lately, and the queue."""
    answer: dict[str, Any] = {"status": "ok", "database": "ok"}
    try:
        with given.store.read() as session:
            live = workers.live(session)
            answer["workers"] = len(live)
            answer["isolation"] = dict(Counter(each.isolation or "unknown" for each in live))
            counts = queue.counts(session)
            answer["queue"] = {state.value: counts[state] for state in WAITING}
    except SQLAlchemyError:
        log.exception("the database does not answer")
        answer = {"status": "degraded", "database": "failed", "workers": 0}
        answer |= {"isolation": {}, "queue": {}}
    return JSONResponse(answer, status_code=200 if answer["status"] == "ok" else 503)
