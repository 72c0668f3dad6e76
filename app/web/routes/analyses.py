"""Analyses: start, follow, read."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from app.domain.words import Priority
from app.store import analyses as store_analyses
from app.store import datasets as store_datasets
from app.store import models as store_models
from app.store.events import analysis_topic
from app.web.answers import Analysis, AnalysisList, Comparison, PointDetail, answers
from app.web.csv import CSV, analysis_csv
from app.web.downloads import content_disposition, slug
from app.web.paging import Asked
from app.web.params import Cascade, ItemId, OptionalId
from app.web.reading import analyses as reading
from app.web.reading import comparisons, details
from app.web.schemas import AnalysisBody, SharpenBody
from app.web.services import Given
from app.web.streaming import EVENTS, After, LastEventId, stream_topic
from app.web.validation import (
    check_available,
    check_data,
    check_units,
    grid_of,
    require_network,
    require_ready,
    sharpening_of,
)
from app.web.views.models import weight_units

router = APIRouter(prefix="/analyses", tags=["analyses"])


@router.post("", status_code=202, responses=answers(Analysis, 202, 404, 409, 422))
def start_analysis(body: AnalysisBody, given: Given) -> JSONResponse:
    """Measure what each unit costs when it is pruned alone. Known points are not redone."""
    check_available(body)
    levels = grid_of(body)
    with given.store.write() as session:
        model = store_models.get(session, body.model_id)
        dataset = store_datasets.get(session, body.dataset_id)
        require_ready(model, "Model", "model_id")
        require_ready(dataset, "Data set", "dataset_id")
        require_network(model)
        check_data(body, dataset)
        units = None if body.units is None else list(dict.fromkeys(body.units))
        if units is not None:
            check_units(units, weight_units(model), "units")
        row = store_analyses.create(
            session,
            model_id=model.id,
            dataset_id=dataset.id,
            levels=levels,
            granularity=body.granularity,
            criteria=list(dict.fromkeys(body.criteria)),
            units=units,
            evaluation=body.evaluation.model_dump(exclude_none=True),
            recalibrate_batch_norm=body.recalibrate_batch_norm,
            seed=body.seed,
            priority=Priority(body.priority),
        )
        created = reading.view(session, reading.find(session, row.id))
    location = {"Location": f"/api/analyses/{created['id']}"}
    return JSONResponse(created, status_code=202, headers=location)


@router.get("", responses=answers(AnalysisList, 200, 422))
def list_analyses(
    given: Given, asked: Asked, model_id: OptionalId = None, dataset_id: OptionalId = None
) -> JSONResponse:
    """Analyses without their curves, newest first; of one model or data set if asked."""
    with given.store.read() as session:
        items, cursor = reading.list_analyses(
            session, asked, model_id=model_id, dataset_id=dataset_id
        )
    return JSONResponse({"items": items, "next_cursor": cursor})


@router.get("/{id}", responses=answers(Analysis, 200, 404))
def get_analysis(item_id: ItemId, given: Given) -> JSONResponse:
    """The analysis with every point that is known so far."""
    with given.store.read() as session:
        return JSONResponse(reading.view(session, reading.find(session, item_id)))


@router.post("/{id}/sharpen", status_code=202, responses=answers(Analysis, 202, 404, 409, 422))
def sharpen_analysis(item_id: ItemId, body: SharpenBody, given: Given) -> JSONResponse:
    """Measure some points, or all, on more samples: until their intervals are narrow, or exactly.

    What is known is kept; the analysis waits in the queue again, or goes on with more to do.
    """
    with given.store.write() as session:
        found = reading.find(session, item_id)
        goal = sharpening_of(body, found.row, found.reader.goals, weight_units(found.model))
        store_analyses.sharpen(session, item_id, goal)
        shown = reading.view(session, reading.find(session, item_id))
    return JSONResponse(shown, status_code=202)


@router.get("/{id}/point", responses=answers(PointDetail, 200, 404, 422))
def get_point(
    item_id: ItemId,
    given: Given,
    unit: Annotated[str, Query(min_length=1, max_length=1000)],
    sparsity: Annotated[float, Query(ge=0, le=1)],
    criterion: Annotated[str | None, Query(max_length=64)] = None,
) -> JSONResponse:
    """One point, with its right answers by class beside the intact network's."""
    with given.store.read() as session:
        found = reading.find(session, item_id)
        return JSONResponse(details.point_view(session, found, unit, criterion, sparsity))


@router.get("/{id}/comparison", responses=answers(Comparison, 200, 404))
def compare_criteria(item_id: ItemId, given: Given) -> JSONResponse:
    """Which criterion does best at each level of each unit, and whether by more than noise.

    From the answers to the same samples: McNemar's test with mid-p.
    """
    with given.store.read() as session:
        found = reading.find(session, item_id)
        return JSONResponse(comparisons.view(session, found))


@router.get("/{id}/events", response_class=Response, responses=EVENTS)
def follow_analysis(
    item_id: ItemId, given: Given, last_event_id: LastEventId = None, after: After = None
) -> Response:
    """Server-sent events: `status`, `baseline`, `points`, `job`, `measurement`. Ids only rise."""
    with given.store.read() as session:
        store_analyses.get(session, item_id)
    return stream_topic(given, analysis_topic(item_id), last_event_id, after)


@router.get("/{id}/curves.csv", response_class=Response, responses=CSV)
def get_curves_csv(item_id: ItemId, given: Given) -> Response:
    """One row a point: what was asked and achieved, accuracy, counts, then the other metrics."""
    with given.store.read() as session:
        found = reading.find(session, item_id)
        view = reading.view(session, found)
    name = f"{slug(found.model.name, 'model')}-analysis-{item_id}-curves.csv"
    return Response(
        analysis_csv(view),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": content_disposition(name)},
    )


@router.delete("/{id}", status_code=204, responses=answers(None, 204, 404, 409))
def delete_analysis(item_id: ItemId, given: Given, cascade: Cascade = False) -> Response:
    store_analyses.delete(given.store, given.blobs, item_id, cascade=cascade)
    return Response(status_code=204)
