"""Uploaded data sets."""

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
from app.store.tables import Dataset


def create(
    session: Session,
    blobs: Blobs,
    *,
    name: str,
    format: str,
    sha256: str,
    bytes: int,
    task: str = "classification",
    options: dict[str, Any] | None = None,
) -> Dataset:
    """A data set whose file is in `blobs` already, and the queued job that imports it.

    `options`: how the file is to be read (see `inspect_dataset`), as its uploader said it.
    The job's payload is `{dataset_id}`. Raises Conflict when the blob was deleted meanwhile.
    """
    hold(session, blobs, sha256)
    moment = now(session)
    dataset = Dataset(
        name=name,
        format=format,
        sha256=sha256,
        bytes=bytes,
        task=task,
        options=options,
        status=Status.IMPORTING,
        created_at=moment,
        updated_at=moment,
    )
    session.add(dataset)
    session.flush()
    job = queue.enqueue(
        session,
        JobKind.IMPORT_DATASET,
        {"dataset_id": dataset.id},
        subject=("dataset", dataset.id),
        priority=queue.SHORT_JOB_PRIORITY,
    )
    dataset.job_id = job.id
    session.flush()
    return dataset


def get(session: Session, dataset_id: int) -> Dataset:
    """Raises NotFound."""
    dataset = session.get(Dataset, dataset_id)
    if dataset is None:
        raise NotFound(f"There is no data set {dataset_id}.", "It may have been deleted.")
    return dataset


def get_many(session: Session, dataset_ids: set[int]) -> dict[int, Dataset]:
    """The data sets with these ids, by id; unknown ones are left out."""
    return {
        row.id: row for row in session.scalars(select(Dataset).where(Dataset.id.in_(dataset_ids)))
    }


def listing(session: Session, *, limit: int = 50, cursor: str | None = None) -> Page[Dataset]:
    """Data sets, newest first."""
    return paged(session, select(Dataset), Dataset.id, limit, cursor)


def delete(store: Store, blobs: Blobs, dataset_id: int, *, cascade: bool = False) -> None:
    """Delete a data set, and its file unless something else has the same one.

    Raises NotFound, and without `cascade` Conflict while analyses or a running job depend on it.
    """
    with store.write() as session:
        hashes = deletion.delete_dataset(session, get(session, dataset_id), cascade=cascade)
    drop_unreferenced(store, blobs, hashes)
