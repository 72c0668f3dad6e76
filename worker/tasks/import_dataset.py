"""An uploaded data set is checked, once, from its first to its last sample."""

from __future__ import annotations

from app.domain.words import Status
from app.store.tables import Dataset
from worker.context import JobContext
from worker.engine.formats.datasets import inspect_dataset


def import_dataset(context: JobContext) -> None:
    """Payload `{dataset_id}`. Raises InvalidFile with the sentence that names the fault."""
    dataset_id = context.payload["dataset_id"]
    with context.store.read() as session:
        row = session.get_one(Dataset, dataset_id)
    info = inspect_dataset(
        context.blobs.local_path(row.sha256),
        row.task,
        cache_dir=context.scratch("datasets", row.sha256),
    )
    context.check()
    with context.write() as session:
        row = session.get_one(Dataset, dataset_id)
        row.format = "npz"
        row.splits = info.splits
        row.input_shape = info.input_shape
        row.classes = info.classes
        row.details = {
            "inputs": info.inputs,
            "input_shapes": info.input_shapes,
            "dtypes": info.dtypes,
            "transformed": info.transformed,
            "dtype": info.dtype,
            "counts": info.counts,
            "notes": info.notes,
        }
        row.status = Status.READY
        row.error = None
