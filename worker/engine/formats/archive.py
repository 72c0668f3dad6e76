"""A zip archive of stored entries, read without trusting anything it says about itself.

Only what `torch.export.save` writes is accepted: entries that are stored, not packed, with plain
names inside one top folder, that lie one after the other inside the file. An entry's bytes go from
the file straight into the memory they are wanted in, so nothing is held twice.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from app.domain.errors import InvalidFile
from app.domain.export_lines import export_hint
from worker.engine.formats.stored import FileBytes, Storage, checksum

MAX_ENTRIES = 50_000
MAX_DIRECTORY_BYTES = 16 << 20
MAX_NAME_BYTES = 1_000
OLD_PROGRAM = "serialized_exported_program.json"
_CHUNK = 8 << 20

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")

RESAVE_HINT = (
    'Save it again with torch.export.save(program, "model.pt2") and upload that file unchanged.'
)


def ends_there(tail: bytes, at: int) -> bool:
    """Whether the end record at `at` is that of the file, not of an archive inside the archive."""
    if len(tail) - at < _END.size:
        return False
    comment_bytes = _END.unpack_from(tail, at)[-1]
    return at + _END.size + comment_bytes == len(tail)


def damaged(what: str) -> InvalidFile:
    """The archive contradicts itself; `what` says where."""
    return InvalidFile(f"The archive is damaged: {what}.", RESAVE_HINT)


@dataclass(frozen=True)
class Entry:
    """One stored entry: its full name and where its `size` bytes begin in the file."""

    name: str
    size: int
    crc: int
    header: int
    start: int


class Archive:
    """The entries of an open archive by name below its one top folder. Use `open_archive`.

    `base` and `file_bytes`: where the archive lies, if it is itself an entry of another one.
    """

    def __init__(self, file: BinaryIO, file_bytes: int, base: int = 0) -> None:
        self._file = file
        self._base = base
        self._file_bytes = file_bytes
        self._source = FileBytes(file)
        entries = self._check_layout(self._directory())
        if OLD_PROGRAM in entries:
            # Before torch 2.8 the entries lay in no folder.
            self.entries = entries
            return
        tops = {name.split("/", 1)[0] for name in entries}
        if len(tops) != 1 or any("/" not in name for name in entries):
            raise InvalidFile(
                "This zip archive is not a .pt2 file: its entries are not in one folder.",
                export_hint(),
            )
        top = tops.pop() + "/"
        self.entries = {name.removeprefix(top): entry for name, entry in entries.items()}

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a small entry. Raises InvalidFile if missing or longer than `limit`."""
        entry = self.entry(name)
        if entry.size > limit:
            raise InvalidFile(
                f"The archive's entry {name} has {entry.size:,} bytes; "
                f"at most {limit:,} are accepted.",
                RESAVE_HINT,
            )
        buffer = bytearray(entry.size)
        self.read_into(entry, memoryview(buffer))
        return bytes(buffer)

    def entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise damaged(f"its entry {name} is missing")
        return self.entries[name]

    def tensor(self, entry: Entry) -> Tensor:
        """The entry's bytes as a uint8 tensor that may be changed, with its checksum compared.

        Large entries are not read but mapped.
        """
        flat = self._source.tensor(self._base + entry.start, entry.size)
        if checksum(flat) != entry.crc:
            raise damaged(f"the checksum of {entry.name} is wrong")
        return flat

    def storage(self, entry: Entry) -> Storage:
        """Where the entry's bytes lie in the file."""
        return Storage(entry.name, self._base + entry.start, entry.size, entry.crc)

    def inner(self, entry: Entry) -> Archive:
        """The archive that is an entry of this one."""
        return Archive(self._file, entry.size, self._base + entry.start)

    def read_into(self, entry: Entry, buffer: memoryview) -> None:
        """Fill `buffer`, which has exactly the entry's size, and compare the checksum."""
        if len(buffer) != entry.size:
            raise ValueError("the buffer does not have the entry's size")
        self._file.seek(self._base + entry.start)
        crc = at = 0
        while at < entry.size:
            part = buffer[at : at + _CHUNK]
            if self._file.readinto(part) != len(part):
                raise damaged(f"{entry.name} is cut short")
            crc = zlib.crc32(part, crc)
            at += len(part)
        if crc != entry.crc:
            raise damaged(f"the checksum of {entry.name} is wrong")

    def _read_at(self, position: int, size: int, what: str) -> bytes:
        if position < 0 or size < 0 or position + size > self._file_bytes:
            raise damaged(f"{what} lies outside the file")
        self._file.seek(self._base + position)
        data = self._file.read(size)
        if len(data) != size:
            raise damaged(f"{what} is cut short")
        return data

    def _end(self) -> tuple[int, int, int]:
        """Number of entries, size and position of the table of contents."""
        tail_size = min(self._file_bytes, _END.size + 65_535)
        tail = self._read_at(self._file_bytes - tail_size, tail_size, "its end")
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or not ends_there(tail, at):
            raise InvalidFile(
                "The archive is cut short: its table of contents, which comes last, is missing.",
                "The upload or the copy was probably interrupted. Upload the whole file again.",
            )
        _, disk, start_disk, here, count, size, position, _ = _END.unpack_from(tail, at)
        end_at = self._file_bytes - tail_size + at
        if 0xFFFF in (here, count) or 0xFFFFFFFF in (size, position):
            locator = self._read_at(end_at - _LOCATOR64.size, _LOCATOR64.size, "its end")
            magic, _, end64_at, _ = _LOCATOR64.unpack(locator)
            if magic != b"PK\x06\x07":
                raise damaged("its end contradicts itself")
            record = self._read_at(end64_at, _END64.size, "its end")
            magic, _, _, _, disk, start_disk, here, count, size, position = _END64.unpack(record)
            if magic != b"PK\x06\x06":
                raise damaged("its end contradicts itself")
        if disk or start_disk or here != count:
            raise damaged("it claims to be split over several files")
        if count > MAX_ENTRIES or size > MAX_DIRECTORY_BYTES:
            raise InvalidFile(
                f"The archive claims {count:,} entries; at most {MAX_ENTRIES:,} are accepted.",
                RESAVE_HINT,
            )
        return count, size, position

    def _directory(self) -> Iterator[Entry]:
        count, size, position = self._end()
        table = self._read_at(position, size, "its table of contents")
        at = 0
        for _ in range(count):
            if len(table) - at < _CENTRAL.size:
                raise damaged("its table of contents is cut short")
            fields = _CENTRAL.unpack_from(table, at)
            magic, _, _, flags, method, _, _, crc, packed, unpacked = fields[:10]
            name_bytes, extra_bytes, comment_bytes, _, _, _, header = fields[10:]
            at += _CENTRAL.size
            raw = table[at : at + name_bytes]
            extra = table[at + name_bytes : at + name_bytes + extra_bytes]
            at += name_bytes + extra_bytes + comment_bytes
            if magic != b"PK\x01\x02" or at > len(table):
                raise damaged("its table of contents is cut short")
            name = _checked_name(raw)
            unpacked, packed, header = _wide(extra, unpacked, packed, header)
            if flags & 0x1:
                raise InvalidFile(f"The archive's entry {name} is encrypted.", RESAVE_HINT)
            if method != 0 or packed != unpacked:
                raise InvalidFile(
                    f"The archive's entry {name} is compressed; torch.export.save stores its "
                    "entries as they are.",
                    RESAVE_HINT,
                )
            yield Entry(name, unpacked, crc, header, 0)

    def _check_layout(self, directory: Iterator[Entry]) -> dict[str, Entry]:
        """Entries by name, each found at its own place in the file."""
        entries: dict[str, Entry] = {}
        for entry in directory:
            if entry.name in entries:
                raise damaged(f"it has two entries named {entry.name}")
            local = self._read_at(entry.header, _LOCAL.size, f"the start of {entry.name}")
            fields = _LOCAL.unpack(local)
            name_bytes, extra_bytes = fields[9], fields[10]
            if fields[0] != b"PK\x03\x04" or fields[3] != 0 or fields[2] & 0x1:
                raise damaged(f"the start of {entry.name} is not where it should be")
            raw = self._read_at(entry.header + _LOCAL.size, name_bytes, f"the name of {entry.name}")
            if _checked_name(raw) != entry.name:
                raise damaged(f"{entry.name} has two names")
            start = entry.header + _LOCAL.size + name_bytes + extra_bytes
            if start + entry.size > self._file_bytes:
                raise damaged(f"{entry.name} goes beyond the end of the file")
            entries[entry.name] = Entry(entry.name, entry.size, entry.crc, entry.header, start)
        end = 0
        for entry in sorted(entries.values(), key=lambda e: e.header):
            if entry.header < end:
                raise damaged(f"{entry.name} overlaps the entry before it")
            end = entry.start + entry.size
        if not entries:
            raise InvalidFile("The archive is empty.", export_hint())
        return entries


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The archive at `path`, closed afterwards. Raises InvalidFile if it breaks any rule."""
    with open(path, "rb", buffering=0) as file:
        yield Archive(file, path.stat().st_size)


def _checked_name(raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged("an entry's name is not text") from error
    parts = name.split("/")
    bad = any(part in ("", ".", "..") for part in parts) or "\\" in name or ":" in name
    if bad or not name.isprintable() or len(raw) > MAX_NAME_BYTES:
        raise InvalidFile(
            f"The archive has an entry with the name {name[:100]!a}, which .pt2 files don't have.",
            RESAVE_HINT,
        )
    return name


def _wide(extra: bytes, unpacked: int, packed: int, header: int) -> tuple[int, int, int]:
    """The three numbers with their 64-bit forms in place of the markers."""
    values = [unpacked, packed, header]
    if 0xFFFFFFFF not in values:
        return unpacked, packed, header
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        field = extra[at + 4 : at + 4 + size]
        if kind == 1:
            for index in range(3):
                if values[index] == 0xFFFFFFFF:
                    if len(field) < 8:
                        raise damaged("the size of an entry is missing")
                    values[index] = struct.unpack_from("<Q", field)[0]
                    field = field[8:]
            return values[0], values[1], values[2]
        at += 4 + size
    raise damaged("the size of an entry is missing")
