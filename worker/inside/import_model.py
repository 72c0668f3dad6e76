"""An uploaded model becomes its canonical form, once, to learn what is in it."""

from __future__ import annotations

from typing import Any

from worker.engine.formats.models import open_model
from worker.inside.description import describe_network
from worker.inside.job import InsideJob

DERIVED = "derived.pt2"
NOTHING: dict[str, Any] = {
    "layers": [],
    "units": [],
    "inputs": [],
    "macs": None,
    "fixed_batch": None,
}


def run(job: InsideJob) -> dict[str, Any]:
    """File `model`, arguments `architecture` and `architecture_args` (or null).

    Gives what the page shows of it, little where the file holds weights only. `derived`: whether
    the network was made from the weights here, and written to "derived.pt2" in the folder.
    """
    opened = open_model(
        job.files["model"],
        architecture=job.arguments["architecture"],
        architecture_args=job.arguments["architecture_args"],
        folder=job.folder,
    )
    if opened.model is None:
        totals = opened.details["totals"]
        described = NOTHING | {"parameters": totals["numel"], "state_bytes": totals["bytes"]}
    else:
        described = describe_network(opened.model)
    return {
        "format": opened.format,
        "details": opened.details,
        "derived": opened.derived is not None,
        **described,
    }
