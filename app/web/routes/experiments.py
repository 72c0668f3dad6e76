"""Experiments: prune and retrain along a plan, beside baselines."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from app.store import datasets as store_datasets
from app.store import experiments as store_experiments
from app.store import plans as store_plans
from app.store.events import experiment_topic
from app.web.answers import Experiment, ExperimentList, answers
from app.web.checkpoints import FORMATS, PROBLEMS, check_format, media_type
from app.web.downloads import bytes_described, send_file, slug
from app.web.paging import Asked
from app.web.params import Cascade, Format, ItemId, OptionalId
from app.web.reading import analyses
from app.web.reading import experiments as reading
from app.web.reading import plans as plan_reading
from app.web.schemas import ExperimentBody
from app.web.services import Given
from app.web.streaming import EVENTS, After, LastEventId, stream_topic
from app.web.validation import experiment_settings

router = APIRouter(prefix="/experiments", tags=["experiments"])

RunName = Annotated[str, Query(max_length=32, description="`plan`, or the name of a baseline.")]


@router.post("", status_code=202, responses=answers(Experiment, 202, 404, 409, 422))
def start_experiment(body: ExperimentBody, given: Given) -> JSONResponse:
    """Prune as the plan says, retrain with the masks held, and do the same with the baselines."""
    with given.store.write() as session:
        plan = store_plans.get(session, body.plan_id)
        analysis = analyses.find(session, plan.analysis_id)
        dataset = store_datasets.get(session, analysis.row.dataset_id)
        settings = experiment_settings(body, dataset.splits or {})
        row = store_experiments.create(session, plan_id=plan.id, settings=settings)
        created = reading.view(session, reading.find(session, row.id))
    location = {"Location": f"/api/experiments/{created['id']}"}
    return JSONResponse(created, status_code=202, headers=location)


@router.get("", responses=answers(ExperimentList, 200, 422))
def list_experiments(given: Given, asked: Asked, plan_id: OptionalId = None) -> JSONResponse:
    """Experiments without their runs, newest first; of one plan if asked."""
    with given.store.read() as session:
        items, cursor = reading.list_experiments(session, asked, plan_id)
    return JSONResponse({"items": items, "next_cursor": cursor})


@router.get("/{id}", responses=answers(Experiment, 200, 404))
def get_experiment(item_id: ItemId, given: Given) -> JSONResponse:
    """The experiment with its runs, epoch by epoch; the run `plan` is the user's own."""
    with given.store.read() as session:
        return JSONResponse(reading.view(session, reading.find(session, item_id)))


@router.get("/{id}/events", response_class=Response, responses=EVENTS)
def follow_experiment(
    item_id: ItemId, given: Given, last_event_id: LastEventId = None, after: After = None
) -> Response:
    """Server-sent events: `status`, `baseline`, `epoch`, `run`. Ids only rise."""
    with given.store.read() as session:
        store_experiments.get(session, item_id)
    return stream_topic(given, experiment_topic(item_id), last_event_id, after)


@router.get("/{id}/checkpoint", response_class=Response, responses=bytes_described(*PROBLEMS))
async def get_experiment_checkpoint(
    item_id: ItemId,
    request: Request,
    given: Given,
    run: RunName = "plan",
    file_format: Format = "safetensors",
) -> Response:
    """The best epoch's weights of one run, its masks, or the recipe (JSON)."""
    check_format(file_format)

    def look() -> tuple[str, dict[str, object]]:
        with given.store.read() as session:
            finished = reading.finished_run(session, item_id, run)
            found = reading.find(session, item_id)
            facts: dict[str, object] = {"checkpoint": finished.checkpoint_sha256}
            if file_format == "recipe":
                facts |= plan_reading.result_facts(session, found.plan)
        suffix = FORMATS[file_format]
        return f"{slug(found.model.name, 'model')}-retrained-{item_id}-{run}{suffix}", facts

    name, facts = await to_thread.run_sync(look)
    path = await given.checkpoints.get(
        ("--experiment", str(item_id), "--run", run), file_format, facts, given.closing
    )
    return send_file(request, path, name, path.name, media_type(file_format))


@router.delete("/{id}", status_code=204, responses=answers(None, 204, 404, 409))
def delete_experiment(item_id: ItemId, given: Given, cascade: Cascade = False) -> Response:
    store_experiments.delete(given.store, given.blobs, item_id, cascade=cascade)
    given.checkpoints.forget("experiment", item_id)
    return Response(status_code=204)
