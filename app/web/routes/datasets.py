"""Data sets: upload, look, delete."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from app.store import datasets as store_datasets
from app.web.answers import Dataset, DatasetList, answers
from app.web.fields import check_data, parse_object, task_of
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
from app.web.views.models import dataset_view

router = APIRouter(prefix="/datasets", tags=["datasets"])

FIELDS = {
    "name": "Display text; by default the file's name.",
    "task": "`classification` (the default), `regression` or `language-modelling`.",
    "options": (
        "How the file is to be read, a JSON object. Images: `preset`, `size`, `resize`, `crop`, "
        "`mean`, `std`, `channels`; tables: `target`, `ignore`, `categorical`."
    ),
}
FORMATS = {
    "npz": "npz", "safetensors": "safetensors", "zip": "zip", "csv": "csv", "parquet": "parquet",
}  # fmt: skip
FILE = (
    "An .npz or .safetensors file with x and y, or with x_tune and y_tune; a .zip with one folder "
    "of images per class; a .csv or .parquet table."
)


@router.post(
    "",
    status_code=202,
    responses=answers(Dataset, 202, 413, 422, 507),
    openapi_extra=form_description(FILE, FIELDS),
)
async def upload_dataset(request: Request, given: Given) -> Response:
    """Upload a data set. It is `importing` until a worker has checked it."""
    try:
        upload = await receive_upload(
            request,
            given.blobs,
            max_bytes=given.settings.max_upload_bytes,
            fields=frozenset(FIELDS),
            check=lambda fields, _: check_data(fields),
        )
    except ClientDisconnect:
        return gone()

    def create(session: Session, upload: Upload) -> JSON:
        row = store_datasets.create(
            session,
            given.blobs,
            name=upload.name,
            format=file_format(upload.file_name, FORMATS),
            sha256=upload.sha256,
            bytes=upload.bytes,
            task=task_of(upload.fields),
            options=parse_object(upload.fields, "options"),
        )
        return dataset_view(row)

    created = await to_thread.run_sync(keep, given.store, given.blobs, upload, create)
    location = {"Location": f"/api/datasets/{created['id']}"}
    return JSONResponse(created, status_code=202, headers=location)


@router.get("", responses=answers(DatasetList, 200, 422))
def list_datasets(given: Given, asked: Asked) -> JSONResponse:
    """All data sets, newest first."""
    with given.store.read() as session:
        items, cursor = reading.list_datasets(session, asked)
    return JSONResponse({"items": items, "next_cursor": cursor})


@router.get("/{id}", responses=answers(Dataset, 200, 404))
def get_dataset(item_id: ItemId, given: Given) -> JSONResponse:
    with given.store.read() as session:
        row = store_datasets.get(session, item_id)
    return JSONResponse(dataset_view(row))


@router.delete("/{id}", status_code=204, responses=answers(None, 204, 404, 409))
def delete_dataset(item_id: ItemId, given: Given, cascade: Cascade = False) -> Response:
    store_datasets.delete(given.store, given.blobs, item_id, cascade=cascade)
    return Response(status_code=204)
