"""Writing what a user takes home: weights, masks and recipes.

Files appear under their name only when they are complete, and the same content gives the same
bytes. Weights keep the keys, order, shapes and dtypes of the upload, so that the user's own code
loads them with `load_state_dict(strict=True)`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from worker.engine.graph import CanonicalModel
from worker.engine.masks import MaskSet

_CHUNK = 1 << 20
# One entry only: safetensors writes several in random order, and the same content would differ.
_METADATA = {"format": "pt"}


@dataclass(frozen=True)
class WrittenFile:
    """A finished file: its place, sha256 (hex) and size."""

    path: Path
    sha256: str
    bytes: int


def pruned_state(model: CanonicalModel, masks: MaskSet | None = None) -> dict[str, Tensor]:
    """A copy of the model's state_dict, pruned: the removed weights are exactly zero.

    The model itself is not touched. Names of one tensor in the model are names of one tensor here.
    """
    state = copy_state(model.state_dict())
    if masks is not None:
        for key, weight in masks.new_weights().items():
            state[key].copy_(weight)
        for key, kept in masks.as_tensors().items():
            state[key].masked_fill_(~kept, 0)
    return state


def copy_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU, in order; keys of the same tensor share their copy."""
    copies: dict[tuple[Any, ...], Tensor] = {}
    result: dict[str, Tensor] = {}
    for key, tensor in state.items():
        place = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if not tensor.numel():
            place = (key,)
        if place not in copies:
            copies[place] = tensor.detach().to("cpu", copy=True).contiguous()
        result[key] = copies[place]
    return result


def as_uploaded(
    state: Mapping[str, Tensor],
    upload: Path,
    *,
    key_prefix: str = "",
    renamed: Mapping[str, str] | None = None,
    others: bool = True,
) -> dict[str, Tensor]:
    """`state` with the keys, and in the order, of the file of weights that its network was made
    from; a `.pt2` has these already.

    `key_prefix` and `renamed` are those of `OpenedModel.details`. `others`: tensors of the upload
    that the network has no use for come along as they are (not for masks). Keys that the upload
    leaves out, being tied to others, stay out. Raises InvalidFile.
    """
    # Late: opening an upload reaches back to this package's readers.
    from worker.engine.formats.sniff import sniff_model_format
    from worker.engine.formats.state_dict import read_state_dict
    from worker.engine.formats.stored import load_stored

    format = sniff_model_format(upload)
    if format == "pt2":
        return dict(state)
    file = read_state_dict(upload, format)
    stored = {file.key_prefix + key: tensor for key, tensor in file.tensors.items()}
    rest = {}
    result: dict[str, Tensor] = {}
    for key, tensor in stored.items():
        short = key.removeprefix(key_prefix)
        own = (renamed or {}).get(short, short)
        if own in state:
            result[key] = state[own]
        elif others:
            rest[key] = tensor
            result[key] = torch.empty(0)
    return result | load_stored(upload, rest)


def write_safetensors(state: Mapping[str, Tensor], path: Path) -> WrittenFile:
    """Weights as safetensors. The format knows no sharing: every name gets its own bytes."""
    apart = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in state.items()}
    with replacing(path) as part:
        save_file(apart, part, metadata=_METADATA)
    return _written(path)


def write_pth(state: Mapping[str, Tensor], path: Path) -> WrittenFile:
    """Weights as a `torch.save`d state_dict of plain tensors, for `torch.load(weights_only=True)`.

    Names of one tensor stay names of one tensor.
    """
    plain = OrderedDict(copy_state(state))
    with replacing(path) as part, open(part, "wb") as file:
        # Given a file and not a path, torch doesn't write the temporary name into the archive.
        torch.save(plain, file)
    return _written(path)


def write_masks(masks: MaskSet | Mapping[str, Tensor], path: Path) -> WrittenFile:
    """Bool masks (True = kept) as safetensors; of a MaskSet by parameter key, all names of each."""
    tensors = masks.as_tensors() if isinstance(masks, MaskSet) else masks
    apart = {key: mask.to(torch.bool).cpu().clone() for key, mask in tensors.items()}
    with replacing(path) as part:
        save_file(apart, part, metadata=_METADATA)
    return _written(path)


def write_recipe(recipe: Mapping[str, Any], path: Path) -> WrittenFile:
    """A recipe as JSON for people. Raises ValueError for NaN and infinity: JSON has neither."""
    text = json.dumps(recipe, indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as part:
        part.write_text(text + "\n", encoding="utf-8")
    return _written(path)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary neighbour of `path` that takes its place, durably, when all went well."""
    path = Path(path)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        part.unlink(missing_ok=True)


def _written(path: Path) -> WrittenFile:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return WrittenFile(Path(path), digest.hexdigest(), size)
