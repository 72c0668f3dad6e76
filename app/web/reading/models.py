"""Models and data sets."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.store.tables import Dataset, Model
from app.web.paging import Paging, fetch
from app.web.views.common import JSON
from app.web.views.models import dataset_view, model_summary

# They are not in the summary, so they stay on the disk. `details` is: it says what a file is.
LONG = (Model.layers, Model.units, Model.inputs)


def list_models(session: Session, asked: Paging) -> tuple[list[JSON], str | None]:
    statement = select(Model).options(*map(defer, LONG))
    rows, cursor = fetch(session, statement, Model.id, asked)
    return [model_summary(row[0]) for row in rows], cursor


def list_datasets(session: Session, asked: Paging) -> tuple[list[JSON], str | None]:
    rows, cursor = fetch(session, select(Dataset), Dataset.id, asked)
    return [dataset_view(row[0]) for row in rows], cursor
