"""Models: upload, look, download, delete."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from app.store import models as store_models
from app.web.answers import Model, ModelList, answers
from app.web.downloads import bytes_described, send_file
from app.web.fields import architecture_of, check_architecture, parse_object
from app.web.paging import Asked
from app.web.params import Cascade, ItemId
from app.web.reading import models as reading
from app.web.services import Given
from app.web.uploads import (
    Upload,
    file_format,
    form_description,
    gone,
    keep,
    receive_upload,
)
from app.web.views.common import JSON
from app.web.views.models import model_view

router = APIRouter(prefix="/models", tags=["models"])

FIELDS = {
    "name": "Display text; by default the file's name.",
    "architecture": (
        "For a file of weights: the network they belong to, as `timm:resnet18` or "
        "`transformers:bert`. Without it the weights can be looked at, not analysed."
    ),
    "architecture_args": 'A JSON object of the architecture\'s arguments: `{"num_classes": 10}`.',
}
FORMATS = {
    "pt2": "pt2", "pt": "pth", "pth": "pth", "safetensors": "safetensors", "onnx": "onnx",
}  # fmt: skip
FILE = (
    "A .pt2 file made with torch.export, or the weights alone: .safetensors, or a .pth or .pt file "
    "of plain tensors."
)


@router.post(
    "",
    status_code=202,
    responses=answers(Model, 202, 413, 422, 507),
    openapi_extra=form_description(FILE, FIELDS),
)
async def upload_model(request: Request, given: Given) -> Response:
    """Upload a model. It is `importing` until a worker has read it."""
    try:
        upload = await receive_upload(
            request,
            given.blobs,
            max_bytes=given.settings.max_upload_bytes,
            fields=frozenset(FIELDS),
            check=check_architecture,
        )
    except ClientDisconnect:
        return gone()

    def create(session: Session, upload: Upload) -> JSON:
        row = store_models.create(
            session,
            given.blobs,
            name=upload.name,
            format=file_format(upload.file_name, FORMATS),
            sha256=upload.sha256,
            bytes=upload.bytes,
            architecture=architecture_of(upload.fields),
            architecture_args=parse_object(upload.fields, "architecture_args"),
        )
        return model_view(row)

    created = await to_thread.run_sync(keep, given.store, given.blobs, upload, create)
    location = {"Location": f"/api/models/{created['id']}"}
    return JSONResponse(created, status_code=202, headers=location)


@router.get("", responses=answers(ModelList, 200, 422))
def list_models(given: Given, asked: Asked) -> JSONResponse:
    """All models, newest first, without their layers and units."""
    with given.store.read() as session:
        items, cursor = reading.list_models(session, asked)
    return JSONResponse({"items": items, "next_cursor": cursor})


@router.get("/{id}", responses=answers(Model, 200, 404))
def get_model(item_id: ItemId, given: Given) -> JSONResponse:
    with given.store.read() as session:
        row = store_models.get(session, item_id)
    return JSONResponse(model_view(row))


@router.get("/{id}/file", response_class=Response, responses=bytes_described())
def get_model_file(item_id: ItemId, request: Request, given: Given) -> Response:
    """The uploaded bytes, unchanged."""
    with given.store.read() as session:
        row = store_models.get(session, item_id)
    name = row.name if "." in row.name else f"{row.name}.{row.format}"
    return send_file(request, given.blobs.local_path(row.sha256), name, row.sha256)


@router.delete("/{id}", status_code=204, responses=answers(None, 204, 404, 409))
def delete_model(item_id: ItemId, given: Given, cascade: Cascade = False) -> Response:
    store_models.delete(given.store, given.blobs, item_id, cascade=cascade)
    return Response(status_code=204)
