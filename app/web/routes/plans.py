"""Plans: choose thresholds, measure them together, take the weights home."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from app.domain.errors import Conflict, InvalidInput
from app.store import plans as store_plans
from app.store.tables import Plan as PlanRow
from app.web.answers import Job, Plan, PlanList, answers
from app.web.checkpoints import FORMATS, PROBLEMS, check_format, media_type
from app.web.downloads import bytes_described, send_file, slug
from app.web.multipart import display_name
from app.web.paging import Asked
from app.web.params import Cascade, Format, ItemId, OptionalId
from app.web.reading import analyses, jobs
from app.web.reading import plans as reading
from app.web.schemas import MeasureBody, PlanBody
from app.web.services import Given
from app.web.validation import check_split, plan_choices
from app.web.views.analyses import predict
from app.web.views.models import model_facts, weight_units

router = APIRouter(prefix="/plans", tags=["plans"])


@router.post("", status_code=201, responses=answers(Plan, 201, 404, 409, 422))
def create_plan(body: PlanBody, given: Given) -> JSONResponse:
    """Store thresholds, with what the curves predict of them together."""
    with given.store.read() as session:
        found = analyses.find(session, body.analysis_id)
        units = weight_units(found.model)
        criterion, sparsities = plan_choices(body, found.row, units)
        if found.baseline is None:
            raise Conflict(
                f"Analysis {found.row.id} has not measured the intact network yet.",
                "Try again as soon as it has a baseline.",
            )
        points = analyses.points_of(session, found)
    predicted = predict(
        sparsities,
        criterion,
        points,
        found.baseline,
        found.kind,
        model_facts(found.model, units),
        found.reader.goals.confidence,
    )
    with given.store.write() as session:
        row = store_plans.create(
            session,
            analysis_id=body.analysis_id,
            criterion=criterion,
            sparsities=sparsities,
            predicted=predicted,
            name=display_name(body.name or "") or None,
        )
        created = reading.view(session, row)
    location = {"Location": f"/api/plans/{created['id']}"}
    return JSONResponse(created, status_code=201, headers=location)


@router.get("", responses=answers(PlanList, 200, 422))
def list_plans(given: Given, asked: Asked, analysis_id: OptionalId = None) -> JSONResponse:
    """Plans, newest first; of one analysis if asked."""
    with given.store.read() as session:
        items, cursor = reading.list_plans(session, asked, analysis_id)
    return JSONResponse({"items": items, "next_cursor": cursor})


@router.get("/{id}", responses=answers(Plan, 200, 404))
def get_plan(item_id: ItemId, given: Given) -> JSONResponse:
    with given.store.read() as session:
        return JSONResponse(reading.view(session, store_plans.get(session, item_id)))


@router.post("/{id}/measure", status_code=202, responses=answers(Job, 202, 404, 409, 422))
def measure_plan(item_id: ItemId, given: Given, body: MeasureBody | None = None) -> JSONResponse:
    """Run the network with the whole plan applied. Asking twice gives the job that is at it."""
    split = check_split((body or MeasureBody()).split)
    with given.store.write() as session:
        plan = store_plans.get(session, item_id)
        _require_baseline(session, plan)
        job = store_plans.request_measurement(session, item_id, split)
        return JSONResponse(jobs.view(session, job), status_code=202)


def _require_baseline(session: Session, plan: PlanRow) -> None:
    if analyses.find(session, plan.analysis_id).baseline is None:
        raise Conflict(
            f"Analysis {plan.analysis_id} has not measured the intact network yet.",
            "Try again as soon as it has a baseline.",
        )


@router.post("/{id}/certify", include_in_schema=False)
def certify_plan(item_id: ItemId, given: Given) -> Response:
    with given.store.read() as session:
        store_plans.get(session, item_id)
    raise InvalidInput("Plans can't be certified yet.", "Measure the plan on the tune split.")


@router.post("/{id}/cross-validate", include_in_schema=False)
def cross_validate_plan(item_id: ItemId, given: Given) -> Response:
    with given.store.read() as session:
        store_plans.get(session, item_id)
    raise InvalidInput("Plans can't be cross-validated yet.", "Measure it on the tune split.")


@router.get("/{id}/checkpoint", response_class=Response, responses=bytes_described(*PROBLEMS))
async def get_plan_checkpoint(
    item_id: ItemId, request: Request, given: Given, file_format: Format = "safetensors"
) -> Response:
    """The pruned weights under the uploaded keys, the masks alone, or the recipe (JSON)."""
    check_format(file_format)

    def look() -> tuple[str, dict[str, object]]:
        with given.store.read() as session:
            row = store_plans.get(session, item_id)
            model = analyses.find(session, row.analysis_id).model
            facts = reading.result_facts(session, row) if file_format == "recipe" else {}
        percent = f"{100 * row.predicted['sparsity']:.1f}".rstrip("0").rstrip(".")
        return f"{slug(model.name, 'model')}-{percent}pct{FORMATS[file_format]}", facts

    name, facts = await to_thread.run_sync(look)
    path = await given.checkpoints.get(("--plan", str(item_id)), file_format, facts, given.closing)
    return send_file(request, path, name, path.name, media_type(file_format))


@router.delete("/{id}", status_code=204, responses=answers(None, 204, 404, 409))
def delete_plan(item_id: ItemId, given: Given, cascade: Cascade = False) -> Response:
    store_plans.delete(given.store, given.blobs, item_id, cascade=cascade)
    given.checkpoints.forget("plan", item_id)
    return Response(status_code=204)
