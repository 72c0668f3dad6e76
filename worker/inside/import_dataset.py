"""An uploaded data set is checked, once, from its first to its last sample."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from worker.engine.formats.datasets import inspect_dataset
from worker.inside.job import InsideJob


def run(job: InsideJob) -> dict[str, Any]:
    """File `dataset`, arguments `task` and `options`. Gives a DatasetInfo as JSON.

    What has to be unpacked or decoded is then in the file `prepared` of the folder. Raises
    InvalidFile with the sentence that names the fault.
    """
    info = inspect_dataset(
        job.files["dataset"], job.arguments["task"], job.arguments["options"], folder=job.folder
    )
    return asdict(info)
