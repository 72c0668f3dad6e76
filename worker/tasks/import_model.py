"""An uploaded model is read, once, to learn what is in it."""

from __future__ import annotations

from contextlib import ExitStack

from app.domain.errors import ChildTookTooLong
from app.domain.words import Status
from app.store import blobs
from app.store.tables import Model
from worker.context import JobContext
from worker.sandbox.walls import Limits
from worker.tasks import uploads
from worker.tasks.descriptions import ImportedModel

DERIVED = "derived.pt2"


def import_model(context: JobContext) -> None:
    """Payload `{model_id}`. Raises InvalidFile when the upload is no model that can be read."""
    model_id = context.payload["model_id"]
    with context.store.read() as session:
        row = session.get_one(Model, model_id)
    arguments = {"architecture": row.architecture, "architecture_args": row.architecture_args}
    files = {"model": context.blobs.local_path(row.sha256)}
    limits = Limits(seconds=uploads.IMPORT_SECONDS)
    with ExitStack() as stack:
        try:
            result = stack.enter_context(
                context.inside("import_model", arguments, files, uploads.silence, limits=limits)
            )
        except ChildTookTooLong as error:
            raise ChildTookTooLong(
                error.message,
                "Export the network with a smaller example input, two samples are enough; or "
                "simplify it.",
            ) from error
        found = ImportedModel.of(result.value)
        found.check()
        derived = None
        if found.derived:
            derived = stack.enter_context(uploads.blob_of(context, result, DERIVED))
        context.check()
        with context.write() as session:
            if derived is not None:
                blobs.hold(session, context.blobs, derived)
            fill(session.get_one(Model, model_id), found, derived)


def fill(row: Model, found: ImportedModel, derived: str | None) -> None:
    described = found.model_dump()
    row.format = found.format
    row.details = found.details.model_dump(exclude_unset=True)
    row.derived_sha256 = derived
    row.parameters = found.parameters
    row.state_bytes = found.state_bytes
    row.macs = found.macs
    row.layers = described["layers"]
    row.units = {"weight": described["units"], "channel": []}
    row.inputs = described["inputs"]
    row.fixed_batch = found.fixed_batch
    row.status = Status.READY
    row.error = None
