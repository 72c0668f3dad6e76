"""What `torch.save` writes, as plain values with stored tensors in them: both of its formats.

Since torch 1.6 it is a zip archive: a pickle `data.pkl`, and the bytes of each storage in an entry
`data/KEY`. Before, it was a row of pickles (a magic number, a version, facts about the machine, the
value, the keys of the storages), then for each storage a number of elements and its bytes; see
`_legacy_save` in torch/serialization.py.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

from app.domain.errors import InvalidFile, UnsafeFile
from worker.engine.formats.archive import Archive, open_archive
from worker.engine.formats.pickle_names import SAVE_HINT, StorageRef, malformed_pickle
from worker.engine.formats.pickle_scan import scan_pickle
from worker.engine.formats.stored import Storage, StoredTensor, itemsize

MAX_PICKLE_BYTES = 64 << 20
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001


def scan_torch_file(path: Path) -> Any:
    """The value that was saved, its tensors as StoredTensors. Raises InvalidFile or UnsafeFile."""
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            file.seek(0)
            return _scan_legacy(file, path.stat().st_size)
    with open_archive(path) as archive:
        return scan_torch_archive(archive)


def scan_torch_archive(archive: Archive) -> Any:
    """The same of an archive that is open."""
    if "byteorder" in archive.entries and archive.read("byteorder", 64) != b"little":
        raise InvalidFile("The file was written on a big-endian machine.", SAVE_HINT)
    if "constants.pkl" in archive.entries:
        raise UnsafeFile("This is a TorchScript archive: it holds code.", SAVE_HINT)
    used: dict[str, int] = {}

    def storage_of(ref: StorageRef) -> Storage:
        entry = archive.entries.get(f"data/{ref.key}")
        if entry is None:
            raise malformed_pickle(f"the bytes of the storage {ref.key[:40]!a} are missing")
        size = ref.size * (itemsize(ref.dtype) if ref.dtype else 1)
        if size != entry.size or used.setdefault(ref.key, size) != size:
            raise malformed_pickle(
                f"a tensor's storage claims {size:,} bytes, the file holds {entry.size:,}"
            )
        return archive.storage(entry)

    pickle = io.BytesIO(archive.read("data.pkl", MAX_PICKLE_BYTES))
    return scan_pickle(pickle, storage_of)


def _scan_legacy(file: BinaryIO, file_bytes: int) -> Any:
    def none_here(ref: StorageRef) -> Storage:
        raise malformed_pickle("a tensor stands where none can be")

    if scan_pickle(file, none_here, 1024) != LEGACY_MAGIC:
        raise UnsafeFile(
            "This is a Python pickle, which can run code when it is opened; it is refused "
            "unopened.",
            SAVE_HINT,
        )
    if scan_pickle(file, none_here, 1024) != _LEGACY_VERSION:
        raise InvalidFile("The file has a form of torch.save that is not known.", SAVE_HINT)
    machine = scan_pickle(file, none_here, 4096)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise InvalidFile("The file was written on a big-endian machine.", SAVE_HINT)
    sizes: dict[str, int] = {}
    counts: dict[str, int] = {}

    def named(ref: StorageRef) -> Storage:
        if ref.dtype is None:
            raise malformed_pickle("a storage has no number type")
        size = ref.size * itemsize(ref.dtype)
        if sizes.setdefault(ref.key, size) != size:
            raise malformed_pickle("a storage has two sizes")
        if counts.setdefault(ref.key, ref.size) != ref.size:
            raise malformed_pickle("a storage has two sizes")
        return Storage(ref.key, 0, size)

    value = scan_pickle(file, named, MAX_PICKLE_BYTES)
    keys = scan_pickle(file, none_here, MAX_PICKLE_BYTES)
    if not isinstance(keys, list) or len(set(map(str, keys))) != len(keys):
        raise malformed_pickle("the list of its storages is no list")
    places: dict[str, Storage] = {}
    at = file.tell()
    for key in keys:
        if not isinstance(key, str) or key not in sizes:
            raise malformed_pickle("it lists a storage that no tensor uses")
        file.seek(at)
        count = int.from_bytes(file.read(8), "little")
        size = sizes[key]
        if count != counts[key]:
            raise malformed_pickle("a storage has two sizes")
        if at + 8 + size > file_bytes:
            raise InvalidFile(
                "The file is cut short: the bytes of a tensor are missing.",
                "The upload or the copy was probably interrupted. Upload the whole file again.",
            )
        places[key] = Storage(key, at + 8, size)
        at += 8 + size
    if set(places) != set(sizes):
        raise malformed_pickle("the bytes of a storage are missing")
    return _placed(value, places, 0, {})


def _placed(value: Any, places: dict[str, Storage], depth: int, seen: dict[int, Any]) -> Any:
    """The value with the storages where they were found; the parts of it that can hold tensors."""
    if isinstance(value, StoredTensor):
        return StoredTensor(
            places[value.storage.name],
            value.dtype,
            value.shape,
            value.strides,
            value.offset,
            value.parameter,
            value.requires_grad,
        )
    if isinstance(value, dict) and depth < 6:
        if id(value) not in seen:
            seen[id(value)] = result = {}
            for key, item in value.items():
                result[key] = _placed(item, places, depth + 1, seen)
        return seen[id(value)]
    return None if isinstance(value, (list, tuple)) else value
