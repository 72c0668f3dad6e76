"""Uploaded networks."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.errors import NotFound
from app.domain.words import JobKind, Status
from app.store import deletion, queue
from app.store.blobs import Blobs, drop_unreferenced, hold
from app.store.clock import now
from app.store.paging import Page, paged
from app.store.store import Store
from app.store.tables import Model


def create(
    session: Session,
    blobs: Blobs,
    *,
    name: str,
    format: str,
    sha256: str,
    bytes: int,
    architecture: str | None = None,
    architecture_args: dict[str, Any] | None = None,
) -> Model:
    """A model whose file is in `blobs` already, and the queued job that imports it.

    `architecture` ("timm:resnet18") and its arguments say which network a file of weights belongs
    to. The job's payload is `{model_id}`. Raises Conflict when the blob was deleted meanwhile.
    """
    hold(session, blobs, sha256)
    moment = now(session)
    model = Model(
        name=name,
        format=format,
        sha256=sha256,
        bytes=bytes,
        architecture=architecture,
        architecture_args=architecture_args,
        status=Status.IMPORTING,
        created_at=moment,
        updated_at=moment,
    )
    session.add(model)
    session.flush()
    job = queue.enqueue(
        session,
        JobKind.IMPORT_MODEL,
        {"model_id": model.id},
        subject=("model", model.id),
        priority=queue.SHORT_JOB_PRIORITY,
    )
    model.job_id = job.id
    session.flush()
    return model


def get(session: Session, model_id: int) -> Model:
    """Raises NotFound."""
    model = session.get(Model, model_id)
    if model is None:
        raise NotFound(f"There is no model {model_id}.", "It may have been deleted.")
    return model


def get_many(session: Session, model_ids: set[int]) -> dict[int, Model]:
    """The models with these ids, by id; unknown ones are left out."""
    return {row.id: row for row in session.scalars(select(Model).where(Model.id.in_(model_ids)))}


def listing(session: Session, *, limit: int = 50, cursor: str | None = None) -> Page[Model]:
    """Models, newest first."""
    return paged(session, select(Model), Model.id, limit, cursor)


def delete(store: Store, blobs: Blobs, model_id: int, *, cascade: bool = False) -> None:
    """Delete a model, and its file unless something else has the same one.

    Raises NotFound, and without `cascade` Conflict while analyses or a running job depend on it.
    """
    with store.write() as session:
        hashes = deletion.delete_model(session, get(session, model_id), cascade=cascade)
    drop_unreferenced(store, blobs, hashes)
