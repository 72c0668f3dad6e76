"""One door for every uploaded model: what it is, and the network in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.errors import InvalidInput
from worker.engine.formats.pt2 import load_model
from worker.engine.formats.sniff import sniff_model_format
from worker.engine.graph import CanonicalModel


@dataclass(frozen=True)
class OpenedModel:
    """What a file turned out to hold.

    `model`: the network, or None where the file holds weights only and no architecture was named.
    `format`: what the file is ("pt2", "safetensors", "pth"). `details`: JSON for the page: `kind`
    ("network" or "weights"), `notes` (sentences), `key_prefix`, `nested_under`, `weights`.
    `derived`: the `.pt2` made from the weights and the architecture, in the given folder. Given to
    `open_model` again, it is read like any uploaded `.pt2`.
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
    if format == "pt2":
        if architecture:
            raise InvalidInput(
                "A .pt2 file holds its network already; it takes no architecture.",
                "Leave the architecture empty, or upload the weights alone (.safetensors or .pth).",
            )
        return OpenedModel(load_model(path, format), format, {"kind": "network", "notes": []})
    raise InvalidInput(f"Models of the format {format!a} can't be read.")
