"""One checkpoint: the uploaded weights with a plan's weights at zero, or a run's best ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from worker.engine.formats.checkpoints import (
    as_uploaded,
    copy_state,
    write_masks,
    write_pth,
    write_safetensors,
)
from worker.engine.graph import CanonicalModel
from worker.engine.masks import MaskSet
from worker.engine.train_state import put_back
from worker.engine.units import weight_units
from worker.inside.job import InsideJob
from worker.inside.opening import open_both, open_network
from worker.inside.pruning import Norms, learning_split, masks_of, norms_of, pruned_network

CHECKPOINT = "checkpoint"
WRITERS = {"safetensors": write_safetensors, "pth": write_pth}


def run(job: InsideJob) -> dict[str, Any]:
    """File `model`, and `weights` where a run's are wanted; arguments `format`, `pruning` as
    `masks_of`. Writes the file "checkpoint".

    Where the criterion or batch norms learn from training samples, the data set comes along as for
    `open_both`. Where the network was made from weights alone, these are the file `upload`, and
    `keys` are the keyword arguments of `as_uploaded`: the checkpoint has the keys of the upload.
    """
    out = job.folder / CHECKPOINT
    file_format = job.arguments["format"]
    if "weights" in job.files and file_format != "masks":
        model = open_network(job)
        state = model.state_dict()
        put_back(state, load_file(job.files["weights"]))
        WRITERS[file_format](renamed(job, state, others=True), out)
        return {}
    model, masks, norms = pruned(job)
    if file_format == "masks":
        write_masks(renamed(job, masks.as_tensors(), others=False), out)
        return {}
    with pruned_network(model, masks, norms) as network:
        state = copy_state(network.state_dict())
    WRITERS[file_format](renamed(job, state, others=True), out)
    return {}


def pruned(job: InsideJob) -> tuple[CanonicalModel, MaskSet, Norms]:
    """The dense network, the masks of the plan, and what becomes of batch norms."""
    pruning = job.arguments["pruning"]
    if "dataset" not in job.files:
        model = open_network(job)
        return model, masks_of(model, weight_units(model), pruning), norms_of(job, None, pruning)
    opened = open_both(job)
    train = learning_split(opened.dataset, pruning)
    masks = masks_of(opened.model, opened.units, pruning, train, job)
    return opened.model, masks, norms_of(job, opened.dataset, pruning)


def renamed(job: InsideJob, state: Mapping[str, Tensor], *, others: bool) -> Mapping[str, Tensor]:
    if "upload" not in job.files:
        return state
    return as_uploaded(state, job.files["upload"], **job.arguments["keys"], others=others)
