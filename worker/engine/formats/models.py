"""One door for every uploaded model: what it is, and the network in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.errors import InvalidInput
from worker.engine.formats.pt2 import load_model
from worker.engine.formats.sniff import sniff_model_format
from worker.engine.formats.state_dict import StateDict, read_state_dict
from worker.engine.formats.weights_look import look_at
from worker.engine.graph import CanonicalModel

DERIVED = "derived.pt2"
_LOOK_ONLY = (
    "The file holds weights without their network, and no architecture was named. What is shown "
    "is a look at the weights, not an analysis."
)


@dataclass(frozen=True)
class OpenedModel:
    """What a file turned out to hold.

    `model`: the network, or None where the file holds weights only and no architecture was named.
    `format`: what the file is ("pt2", "safetensors", "pth"). `details`: JSON for the page: `kind`
    ("network" or "weights"), `notes` (sentences); of weights also `key_prefix`, `nested_under` and
    either `renamed` (keys of the upload, without the prefix, to the network's, where they differ),
    `architecture` and `architecture_args` as used, or `weights` and `totals` as in
    `weights_look.look_at`. `derived`: the `.pt2` made from the weights and the architecture, in the
    given folder. Given to `open_model` again, it is read like any uploaded `.pt2`.
    """

    model: CanonicalModel | None
    format: str
    details: dict[str, Any]
    derived: Path | None = None


def open_model(
    path: Path,
    *,
    architecture: str | None = None,
    architecture_args: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> OpenedModel:
    """Read the upload at `path`. Raises InvalidFile or InvalidInput with a sentence.

    `architecture` ("timm:resnet18") builds the network that a file of weights belongs to; `folder`
    is an existing one that the derived network is written to, as "derived.pt2".
    """
    format = sniff_model_format(path)
    if architecture_args and not architecture:
        raise InvalidInput(
            "Arguments were given for an architecture, but no architecture was named.",
            'Name one, such as "timm:resnet18", or leave the arguments empty.',
        )
    if format == "pt2":
        if architecture:
            raise InvalidInput(
                "A .pt2 file holds its network already; it takes no architecture.",
                "Leave the architecture empty, or upload the weights alone (.safetensors or .pth).",
            )
        return OpenedModel(load_model(path, format), format, {"kind": "network", "notes": []})
    state = read_state_dict(path, format)
    if architecture:
        return _with_architecture(state, format, architecture, architecture_args or {}, folder)
    look = look_at(state.path, state.tensors)
    details = {
        "kind": "weights",
        "notes": [*state.notes, _LOOK_ONLY],
        "key_prefix": state.key_prefix,
        "nested_under": state.nested_under,
        "weights": look["tensors"],
        "totals": look["totals"],
    }
    return OpenedModel(None, format, details)


def _with_architecture(
    state: StateDict,
    format: str,
    architecture: str,
    arguments: Mapping[str, Any],
    folder: Path | None,
) -> OpenedModel:
    # Late, as it reaches for libraries that are not there in every installation.
    from worker.engine.formats.zoo.derive import derive

    if folder is None:
        raise ValueError("a network made from weights needs a folder to be written to")
    made = derive(state, architecture, arguments, folder / DERIVED)
    details = {
        "kind": "network",
        "notes": made.notes,
        "key_prefix": made.key_prefix,
        "renamed": made.renamed,
        "nested_under": state.nested_under,
        "architecture": architecture,
        "architecture_args": made.arguments,
    }
    return OpenedModel(made.model, format, details, made.path)
