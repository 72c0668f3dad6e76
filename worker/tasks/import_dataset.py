"""An uploaded data set is checked, once, from its first to its last sample."""

from __future__ import annotations

from app.domain.words import Status
from app.store.tables import Dataset
from worker.context import JobContext
from worker.tasks import uploads
from worker.tasks.descriptions import ImportedDataset


def import_dataset(context: JobContext) -> None:
    """Payload `{dataset_id}`. Raises InvalidFile with the sentence that names the fault."""
    dataset_id = context.payload["dataset_id"]
    with context.store.read() as session:
        row = session.get_one(Dataset, dataset_id)
    with uploads.inspected(context, row) as (result, found):
        context.check()
        if found.prepared:
            uploads.take_prepared(context, row, result)
        with context.write() as session:
            fill(session.get_one(Dataset, dataset_id), found)


def fill(row: Dataset, found: ImportedDataset) -> None:
    row.format = found.format
    row.splits = dict(found.splits)
    row.input_shape = found.input_shape
    row.classes = found.classes
    row.details = found.model_dump(exclude={"task", "format", "splits", "input_shape", "classes"})
    row.status = Status.READY
    row.error = None
