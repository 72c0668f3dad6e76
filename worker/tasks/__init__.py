"""One task a job kind: the trusted half. It knows the database, and never opens an upload.

What has to be read or computed is done by the recipe of the same name in `worker.inside`, in a
child behind walls; whatever that says is checked here before it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from app.domain.words import JobKind
from worker.context import JobContext
from worker.tasks.analyse import analyse
from worker.tasks.import_dataset import import_dataset
from worker.tasks.import_model import import_model
from worker.tasks.measure import measure
from worker.tasks.retrain import retrain

TASKS: Mapping[str, Callable[[JobContext], None]] = {
    JobKind.IMPORT_MODEL: import_model,
    JobKind.IMPORT_DATASET: import_dataset,
    JobKind.ANALYSE: analyse,
    JobKind.MEASURE: measure,
    JobKind.RETRAIN: retrain,
}
