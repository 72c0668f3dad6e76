"""Zip archives of which every field can be a lie."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

STORED, DEFLATED = 0, 8


@dataclass(frozen=True)
class Member:
    """`data` as it lies in the file. None: what an honest archive would say of it."""

    name: bytes
    data: bytes = b""
    method: int = STORED
    size: int | None = None
    packed: int | None = None
    crc: int | None = None
    flags: int = 0
    local_name: bytes | None = None
    local_method: int | None = None
    attributes: int = 0
    extra: bytes = b""
    at: int | None = None
    """Where it claims to begin; its own bytes are then left out."""


def deflated(name: str, data: bytes, **lies: object) -> Member:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    raw = packer.compress(data) + packer.flush()
    honest = {"size": len(data), "crc": zlib.crc32(data)}
    return Member(name.encode(), raw, DEFLATED, **(honest | lies))  # type: ignore[arg-type]


def members(entries: dict[str, bytes]) -> list[Member]:
    return [Member(name.encode(), data) for name, data in entries.items()]


def local(member: Member) -> bytes:
    name = member.name if member.local_name is None else member.local_name
    method = member.method if member.local_method is None else member.local_method
    head = struct.pack(
        "<4s5H3I2H", b"PK\x03\x04", 20, member.flags, method, 0, 33, _crc(member),
        _packed(member) & 0xFFFFFFFF, _size(member) & 0xFFFFFFFF, len(name), 0,
    )  # fmt: skip
    return head + name + member.data


def central(member: Member, at: int) -> bytes:
    head = struct.pack(
        "<4s6H3I5H2I", b"PK\x01\x02", 0x0314, 20, member.flags, member.method, 0, 33, _crc(member),
        _packed(member) & 0xFFFFFFFF, _size(member) & 0xFFFFFFFF, len(member.name),
        len(member.extra), 0, 0, 0, member.attributes, at & 0xFFFFFFFF,
    )  # fmt: skip
    return head + member.name + member.extra


def end(count: int, size: int, at: int, comment: bytes = b"") -> bytes:
    small = min(count, 0xFFFF)
    head = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, small, small, size, at, len(comment))
    return head + comment


def archive(
    parts: Iterable[Member], *, comment: bytes = b"", count: int | None = None, before: bytes = b""
) -> bytes:
    body, table, number = bytearray(before), bytearray(), 0
    for member in parts:
        at = len(body) if member.at is None else member.at
        if member.at is None:
            body += local(member)
        table += central(member, at)
        number += 1
    claimed = number if count is None else count
    return bytes(body + table) + end(claimed, len(table), len(body), comment)


def _size(member: Member) -> int:
    return len(member.data) if member.size is None else member.size


def _packed(member: Member) -> int:
    return len(member.data) if member.packed is None else member.packed


def _crc(member: Member) -> int:
    return zlib.crc32(member.data) if member.crc is None else member.crc
