"""A file of weights: the one mapping of tensors in it, and what was passed over to find it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from app.domain.errors import InvalidFile
from worker.engine.formats.pickle_names import SAVE_HINT, Opaque
from worker.engine.formats.safetensors_file import scan_safetensors
from worker.engine.formats.stored import StoredTensor, check_stored, load_stored
from worker.engine.formats.torch_file import scan_torch_file

MAX_KEY = 500
MAX_NESTING = 3
# Where training scripts put the weights, the one to take first if several are there.
PREFERRED = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "generator",
    "ema",
    "model_ema",
    "ema_state_dict",
    "state_dict_ema",
    "params_ema",
)
PREFIXES = ("module.", "_orig_mod.")
_NOT_WEIGHTS = re.compile(
    r"optim|sched|scaler|amp$|_metadata$|history|criterion|loss", re.IGNORECASE
)


@dataclass(frozen=True)
class StateDict:
    """The weights of a file, by key without `key_prefix`, in the order of the file.

    `nested_under`: the entry of a checkpoint that they were taken from ("state_dict"); "a.b" is an
    entry of an entry. `notes`: sentences about both, and about what was passed over.
    """

    path: Path
    tensors: Mapping[str, StoredTensor]
    nested_under: str | None = None
    key_prefix: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def numel(self) -> int:
        """Numbers in all tensors, those with several names counted once."""
        return sum(tensor.numel for tensor in set(self.tensors.values()))

    def load(self) -> dict[str, Tensor]:
        """All tensors by key; keys of one tensor give one object. Raises InvalidFile."""
        return load_stored(self.path, self.tensors)


def read_state_dict(path: Path, format: str) -> StateDict:
    """The weights in a file of the format "safetensors" or "pth", not yet read.

    Raises InvalidFile or UnsafeFile.
    """
    if format == "safetensors":
        return state_dict_of(path, scan_safetensors(path))
    return state_dict_of(path, scan_torch_file(path))


def state_dict_of(path: Path, value: Any) -> StateDict:
    """The weights in a saved value. Raises InvalidFile if it holds none."""
    if isinstance(value, StoredTensor):
        raise InvalidFile(
            "The file holds a single tensor, not the weights of a network.", SAVE_HINT
        )
    if not isinstance(value, dict):
        raise InvalidFile("The file holds no weights: it is no state_dict.", SAVE_HINT)
    notes: list[str] = []
    nested, chosen = _chosen(value, notes)
    tensors: dict[str, StoredTensor] = {}
    dropped = []
    for key, item in chosen.items():
        if isinstance(item, StoredTensor) and isinstance(key, str):
            tensors[_checked_key(key)] = item
        elif not (isinstance(item, dict) and not nested):
            dropped.append(str(key)[:60])
    if nested:
        notes.append(f"The weights were taken from the file's entry {nested!r}.")
        dropped = [str(key)[:60] for key in value if str(key) != nested.split(".")[0]] + dropped
    else:
        dropped += [str(key)[:60] for key, item in value.items() if isinstance(item, dict)]
    if dropped:
        more = f" and {len(dropped) - 8} more" if len(dropped) > 8 else ""
        notes.append(f"Passed over, as these are no weights: {', '.join(dropped[:8])}{more}.")
    check_stored(tensors)
    prefix = common_prefix(tensors)
    if prefix:
        notes.append(f"All keys begin with {prefix!r}; the network's own keys come after it.")
    return StateDict(
        path,
        {key.removeprefix(prefix): tensor for key, tensor in tensors.items()},
        nested or None,
        prefix,
        notes,
    )


def common_prefix(keys: Mapping[str, Any]) -> str:
    """What DistributedDataParallel and torch.compile put before every key; "" if nothing."""
    prefix = ""
    while True:
        added = next((p for p in PREFIXES if all(key.startswith(prefix + p) for key in keys)), None)
        if added is None or not keys:
            return prefix
        prefix += added


def _tensors_in(value: Mapping[Any, Any]) -> int:
    return sum(isinstance(item, StoredTensor) for item in value.values())


def _chosen(root: Mapping[Any, Any], notes: list[str]) -> tuple[str, Mapping[Any, Any]]:
    """The mapping that holds the weights, and the names on the way to it."""
    found: list[tuple[str, Mapping[Any, Any]]] = []
    # The same mapping may stand under a thousand names, a thousand times over.
    seen: set[int] = set()

    def look(value: Mapping[Any, Any], path: str, depth: int) -> None:
        for key, item in value.items():
            if not isinstance(item, dict) or not isinstance(key, str) or "." in key:
                continue
            if _NOT_WEIGHTS.search(key) or len(key) > MAX_KEY or id(item) in seen:
                continue
            seen.add(id(item))
            name = f"{path}.{key}" if path else key
            if _tensors_in(item):
                found.append((name, item))
            elif depth < MAX_NESTING:
                look(item, name, depth + 1)

    look(root, "", 1)

    def rank(entry: tuple[str, Mapping[Any, Any]]) -> tuple[int, int]:
        last = entry[0].rpartition(".")[2].lower()
        known = PREFERRED.index(last) if last in PREFERRED else len(PREFERRED)
        return known, -_tensors_in(entry[1])

    found.sort(key=rank)
    own = _tensors_in(root)
    if not found or own > max(_tensors_in(item) for _, item in found):
        if not own:
            raise _no_weights(root)
        return "", root
    if len(found) > 1:
        others = ", ".join(repr(name) for name, _ in found[1:5])
        notes.append(f"The file holds other weights too, which were not taken: {others}.")
    return found[0]


def _no_weights(root: Mapping[Any, Any]) -> InvalidFile:
    objects = [str(key)[:40] for key, item in root.items() if isinstance(item, Opaque)]
    about = f" Its entries are {', '.join(map(repr, list(root)[:6]))}." if root else ""
    if objects:
        about += f" {objects[0]!r} is an object, not a mapping of tensors."
    return InvalidFile(f"The file holds no weights.{about}", SAVE_HINT)


def _checked_key(key: str) -> str:
    if not key or len(key) > MAX_KEY or not key.isprintable():
        raise InvalidFile(
            f"The file has a tensor named {key[:80]!a}; names are up to {MAX_KEY} printable "
            "characters.",
            "Rename it and save the weights again.",
        )
    return key
