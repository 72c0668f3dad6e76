"""`.pt2` files of older torch, whose weights lie in a pickle inside the archive.

torch 2.1 to 2.7 wrote the entries `serialized_exported_program.json`, `serialized_state_dict.pt`
and `serialized_constants.pt` (2.1: `.json`, for the same contents) side by side; torch 2.8 wrote
today's layout with `data/weights/NAME.pt` and `data/constants/NAME.pt`. Each `.pt` is an archive of
`torch.save` with a dictionary of tensors. See `save` in torch/export/__init__.py and
`_package_exported_programs` in torch/export/pt2_archive/_package.py of those versions, and what
torch 2.13 still accepts in `load` there.

The graph's JSON has the same form since version 5 of its schema (torch 2.3): until 8 only an
argument's kind was added, and `as_none` changed its value, which is not read. Before, tagged values
were written differently.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from app.domain.errors import InvalidFile
from app.domain.export_lines import export_hint
from worker.engine.formats.archive import OLD_PROGRAM, Archive
from worker.engine.formats.pt2_json import parse_key
from worker.engine.formats.stored import StoredTensor, load_stored
from worker.engine.formats.torch_file import scan_torch_archive

OLDEST_SCHEMA = 5
SCHEMA = 8
_OLD_ENTRIES = {
    "weights": ("serialized_state_dict.pt", "serialized_state_dict.json"),
    "constants": ("serialized_constants.pt", "serialized_constants.json"),
}
RESAVE_LINE = 'torch.export.save(torch.export.load("model.pt2"), "new.pt2")'


def is_old(archive: Archive) -> bool:
    """Whether the archive has the layout from before torch 2.8."""
    return OLD_PROGRAM in archive.entries


def pickled_entry(archive: Archive, folder: str, model: str) -> str | None:
    """The entry that holds the weights (or constants) as a pickle; None if none does."""
    names = (f"data/{folder}/{model}.pt",)
    if is_old(archive):
        names = _OLD_ENTRIES[folder]
    return next((name for name in names if name in archive.entries), None)


def read_pickled(
    path: Path, archive: Archive, name: str, parameters: AbstractSet[str]
) -> tuple[dict[str, Tensor], frozenset[str]]:
    """The tensors of a pickled entry by key, and which of them are parameters.

    `parameters`: those that the graph calls so. Raises InvalidFile or UnsafeFile.
    """
    entry = archive.entry(name)
    if entry.size == 0:
        return {}, frozenset()
    value = scan_torch_archive(archive.inner(entry))
    if not isinstance(value, dict):
        raise _odd(name)
    stored: dict[str, StoredTensor] = {}
    for key, tensor in value.items():
        if not isinstance(tensor, StoredTensor):
            raise _odd(name)
        is_parameter = tensor.parameter or key in parameters
        stored[parse_key(key)] = replace(
            tensor,
            parameter=is_parameter,
            requires_grad=tensor.requires_grad or (is_parameter and not tensor.parameter),
        )
    found = frozenset(key for key, tensor in stored.items() if tensor.parameter)
    return load_stored(path, stored), found


def check_schema(major: int, *, old: bool) -> None:
    """Raises InvalidFile for versions of the graph's form that are not read here."""
    if major == SCHEMA or (old and OLDEST_SCHEMA <= major < SCHEMA):
        return
    if major < OLDEST_SCHEMA:
        raise InvalidFile(
            f"The network was exported in version {major} of the format, by torch 2.2 or older; "
            f"versions {OLDEST_SCHEMA} to {SCHEMA} are read here.",
            export_hint("No newer torch reads it either. Export it again with torch 2.13"),
        )
    raise InvalidFile(
        f"The network was exported in version {major} of the format; "
        f"version {SCHEMA} is read here.",
        "Save it again with a torch that has version 8 (2.6 to 2.13): "
        f"{RESAVE_LINE}\n" + export_hint("Or export it with torch 2.13"),
    )


def _odd(name: str) -> InvalidFile:
    return InvalidFile(
        f"The archive's {name} holds something that is no tensor.",
        "Save it again, in an environment with a newer torch: " + RESAVE_LINE,
    )
