"""Jobs: what is being done, and how to stop it or try again."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from app.domain.words import JobState, Priority
from app.store import queue, steering
from app.web.answers import Job, JobList, answers
from app.web.paging import Asked
from app.web.params import ItemId
from app.web.reading import jobs as reading
from app.web.schemas import PriorityBody
from app.web.services import Given

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.get("", responses=answers(JobList, 200, 422))
def list_jobs(given: Given, asked: Asked, state: JobState | None = None) -> JSONResponse:
    """All jobs, newest first; with `state` only those in it."""
    with given.store.read() as session:
        items, cursor = reading.list_jobs(session, asked, state)
    return JSONResponse({"items": items, "next_cursor": cursor})


@router.get("/{id}", responses=answers(Job, 200, 404))
def get_job(item_id: ItemId, given: Given) -> JSONResponse:
    with given.store.read() as session:
        return JSONResponse(reading.read_job(session, item_id))


@router.post("/{id}/cancel", status_code=202, responses=answers(Job, 202, 404, 409))
def cancel_job(item_id: ItemId, given: Given) -> JSONResponse:
    """A waiting job is cancelled at once, a running one as soon as its worker notices."""
    with given.store.write() as session:
        queue.request_cancel(session, item_id)
        return JSONResponse(reading.read_job(session, item_id), status_code=202)


@router.post("/{id}/retry", status_code=202, responses=answers(Job, 202, 404, 409))
def retry_job(item_id: ItemId, given: Given) -> JSONResponse:
    """A failed or cancelled job waits in the queue again. What it had measured is kept."""
    with given.store.write() as session:
        queue.retry(session, item_id)
        return JSONResponse(reading.read_job(session, item_id), status_code=202)


@router.post("/{id}/pause", status_code=202, responses=answers(Job, 202, 404, 409))
def pause_job(item_id: ItemId, given: Given) -> JSONResponse:
    """A job that waits or runs rests until it is resumed. What it had measured is kept."""
    with given.store.write() as session:
        steering.pause(session, item_id)
        return JSONResponse(reading.read_job(session, item_id), status_code=202)


@router.post("/{id}/resume", status_code=202, responses=answers(Job, 202, 404, 409))
def resume_job(item_id: ItemId, given: Given) -> JSONResponse:
    """A paused job waits for its turn again."""
    with given.store.write() as session:
        steering.resume(session, item_id)
        return JSONResponse(reading.read_job(session, item_id), status_code=202)


@router.post("/{id}/priority", status_code=202, responses=answers(Job, 202, 404, 409, 422))
def set_job_priority(item_id: ItemId, body: PriorityBody, given: Given) -> JSONResponse:
    """Whose turn is first. A running analysis gives way to one of higher priority."""
    with given.store.write() as session:
        steering.set_priority(session, item_id, Priority(body.priority))
        return JSONResponse(reading.read_job(session, item_id), status_code=202)
