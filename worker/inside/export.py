"""One checkpoint: the uploaded weights with a plan's weights at zero, or a run's best ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from worker.engine.formats.checkpoints import (
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
    """File `model`, and `weights` where a run's are wanted; arguments `format`, `key_prefix`,
    `pruning` as `masks_of`. Writes the file "checkpoint".

    Keys are those of the upload: `key_prefix` is what was cut from them to fit the network.
    """
    model = open_network(job)
    masks = masks_of(model, weight_units(model), job.arguments["pruning"])
    out = job.folder / CHECKPOINT
    prefix = job.arguments["key_prefix"]
    if job.arguments["format"] == "masks":
        write_masks(prefixed(masks.as_tensors(), prefix), out)
        return {}
    state: Mapping[str, Tensor]
    if "weights" in job.files:
        state = model.state_dict()
        put_back(state, load_file(job.files["weights"]))
    else:
        state = pruned_state(model, masks)
    write = {"safetensors": write_safetensors, "pth": write_pth}[job.arguments["format"]]
    write(prefixed(state, prefix), out)
    return {}


def prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in tensors.items()}
