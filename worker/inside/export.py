"""One checkpoint: the uploaded weights with a plan's weights at zero, or a run's best ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from worker.engine.formats.checkpoints import (
    as_uploaded,
    pruned_state,
    write_masks,
    write_pth,
    write_safetensors,
)
from worker.engine.train_state import put_back
from worker.engine.units import weight_units
from worker.inside.job import InsideJob
from worker.inside.opening import open_network
from worker.inside.pruning import masks_of

CHECKPOINT = "checkpoint"


def run(job: InsideJob) -> dict[str, Any]:
    """File `model`, and `weights` where a run's are wanted; arguments `format`, `pruning` as
    `masks_of`. Writes the file "checkpoint".

    Where the network was made from weights alone, these are the file `upload`, and `keys` are the
    keyword arguments of `as_uploaded`: the checkpoint has the keys of the upload.
    """
    model = open_network(job)
    masks = masks_of(model, weight_units(model), job.arguments["pruning"])
    out = job.folder / CHECKPOINT
    if job.arguments["format"] == "masks":
        write_masks(renamed(job, masks.as_tensors(), others=False), out)
        return {}
    state: Mapping[str, Tensor]
    if "weights" in job.files:
        state = model.state_dict()
        put_back(state, load_file(job.files["weights"]))
    else:
        state = pruned_state(model, masks)
    write = {"safetensors": write_safetensors, "pth": write_pth}[job.arguments["format"]]
    write(renamed(job, state, others=True), out)
    return {}


def renamed(job: InsideJob, state: Mapping[str, Tensor], *, others: bool) -> Mapping[str, Tensor]:
    if "upload" not in job.files:
        return state
    return as_uploaded(state, job.files["upload"], **job.arguments["keys"], others=others)
