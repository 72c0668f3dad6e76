"""The whole state of a training run as one file, so that a killed worker loses one epoch at most.

One safetensors file: tensors under `weight/KEY`, `best/KEY` and `momentum/NAME`, everything else as
JSON in its header. There is no state of random numbers in it: each epoch seeds them anew from the
run's seed and the epoch's number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from app.domain.errors import InvalidInput
from worker.engine.formats.checkpoints import replacing

FORMAT = "prunescope-training-1"


@dataclass(frozen=True)
class TrainState:
    """`weights` and `best` by state_dict key, one name of each tensor; `momentum` by parameter."""

    weights: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    momentum: Mapping[str, Tensor]
    progress: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Writes the file; whoever opens `path` finds the old state or the new one, whole."""
        tensors = {
            f"{kind}/{key}": tensor.detach().contiguous()
            for kind, group in (
                ("weight", self.weights),
                ("best", self.best),
                ("momentum", self.momentum),
            )
            for key, tensor in group.items()
        }
        # One entry, because safetensors writes several in random order.
        header = json.dumps({"format": FORMAT, "progress": self.progress}, allow_nan=False)
        with replacing(path) as part:
            save_file(tensors, part, metadata={"training": header})

    @classmethod
    def load(cls, path: Path) -> TrainState:
        """Raises InvalidInput when the file is no training state."""
        groups: dict[str, dict[str, Tensor]] = {"weight": {}, "best": {}, "momentum": {}}
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["training"])
                if header["format"] != FORMAT:
                    raise _unusable(path)
                for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                    kind, key = name.split("/", 1)
                    groups[kind][key] = file.get_tensor(name)
        except (SafetensorError, KeyError, ValueError) as error:
            raise _unusable(path) from error
        return cls(groups["weight"], groups["best"], groups["momentum"], header["progress"])


def distinct(state: Mapping[str, Tensor], tied: Mapping[str, str]) -> dict[str, Tensor]:
    """The live tensors of a state_dict, without autograd, under their first names only."""
    return {key: tensor.detach() for key, tensor in state.items() if key not in tied}


@torch.no_grad()
def put_back(state: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Copies saved tensors into the live ones of a model. Raises InvalidInput if they differ."""
    if not saved.keys() <= state.keys() or any(
        state[key].shape != tensor.shape or state[key].dtype != tensor.dtype
        for key, tensor in saved.items()
    ):
        raise InvalidInput(
            "The saved training state belongs to another network.", "Start the retraining anew."
        )
    for key, tensor in saved.items():
        state[key].copy_(tensor)


def _unusable(path: Path) -> InvalidInput:
    return InvalidInput(
        f"The file {path.name} is not a training state.", "Start the retraining anew."
    )
