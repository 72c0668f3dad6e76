"""Mutations of sound files, chosen by hypothesis, all read in one watched child.

`PRUNESCOPE_FUZZ=5000` asks for more than the 200 mutations a reader that every run makes, and other
ones each time; without it they are the same ones every time.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import struct
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, configuration, given, settings
from hypothesis import strategies as st

MUTATIONS = int(os.environ.get("PRUNESCOPE_FUZZ", "200"))
_NUMBERS = [
    0,
    1,
    -1,
    2,
    127,
    255,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    (1 << 63) - 1,
    1 << 64,
    -(1 << 63),
]
_JUNK: list[Any] = [
    *_NUMBERS, None, True, False, 1.5, -0.0, 1e308, "", "x", "../x", "\ud800", "a" * 5000, [], {},
    [None], [[]], {"as_int": None}, {"as_tensor": {"name": "x"}}, ["a"] * 50, [0] * 70,
]  # fmt: skip
_INTERESTING = [b"\x00", b"\xff", b"\x7f", b"\x80", b"PK\x03\x04", b"PK\x01\x02", b"{", b"}", b"\n",
                b'"', b",", b"\x00" * 8, b"\xff" * 8, struct.pack("<Q", 1 << 40)]  # fmt: skip


def flipped(raw: bytes, rng: random.Random) -> bytes:
    """One to eight bytes changed, mostly near each other."""
    made = bytearray(raw)
    at = rng.randrange(len(made))
    for _ in range(rng.randint(1, 8)):
        place = (at + rng.randrange(-24, 24)) % len(made)
        made[place] = rng.choice(
            [rng.randrange(256), made[place] ^ (1 << rng.randrange(8)), 0, 255]
        )
    return bytes(made)


def cut(raw: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(raw)), rng.choice([1, 2, 8, 64, len(raw)])
    return raw[:at] + raw[at + size :]


def spliced(raw: bytes, rng: random.Random) -> bytes:
    """A piece of the file, or of what parsers look for, somewhere else."""
    at, other = rng.randrange(len(raw)), rng.randrange(len(raw))
    piece = rng.choice([raw[other : other + rng.choice([1, 8, 200])], *_INTERESTING])
    keep = at + (len(piece) if rng.random() < 0.5 else 0)
    return raw[:at] + piece * rng.choice([1, 1, 1, 100]) + raw[keep:]


def renumbered(raw: bytes, rng: random.Random) -> bytes:
    """A number of two, four or eight bytes made another one."""
    width, code = rng.choice([(2, "H"), (4, "I"), (8, "Q")])
    if len(raw) <= width:
        return raw
    at = rng.randrange(len(raw) - width)
    value = rng.choice(_NUMBERS) % (1 << 8 * width)
    return raw[:at] + struct.pack("<" + code, value) + raw[at + width :]


def respelled(raw: bytes, rng: random.Random) -> bytes:
    """A number or a word of a text made another one; otherwise as `flipped`."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?|[A-Za-z_.]{2,}", raw[: 1 << 16]))
    if not found:
        return flipped(raw, rng)
    place = rng.choice(found)
    other = rng.choice([str(rng.choice(_NUMBERS)).encode(), rng.choice(found).group(), b"", b"nan",
                        b"1e999", b'"', b"\xf0\x9f\x98\x80", b"\xed\xa0\x80"])  # fmt: skip
    return raw[: place.start()] + other + raw[place.end() :]


def in_json(raw: bytes, rng: random.Random) -> bytes:
    """One to three values of a JSON text made others, removed, doubled or moved."""
    record = json.loads(raw)
    for _ in range(rng.randint(1, 3)):
        places: list[tuple[Any, Any]] = []
        waiting: list[Any] = [record]
        while waiting:
            holder = waiting.pop()
            items = holder.items() if isinstance(holder, dict) else enumerate(holder)
            for key, value in items:
                places.append((holder, key))
                if isinstance(value, (dict, list)):
                    waiting.append(value)
        if not places:
            return flipped(raw, rng)
        holder, key = rng.choice(places)
        other, place = rng.choice(places)
        match rng.randrange(5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.append(holder[key])
            case 2:
                holder[key] = json.loads(json.dumps(other[place]))
            case _:
                holder[key] = rng.choice(_JUNK)
    return json.dumps(record).encode()


PLAIN = [flipped, cut, spliced, renumbered, respelled]


def zipped(raw: bytes, rng: random.Random) -> bytes:
    """A zip archive with one of its entries changed, its checksum made right again; or its own
    fields changed."""
    from tests.attacks import zips
    from tests.attacks.doors import unzipped

    if rng.random() < 0.2:
        return rng.choice(PLAIN)(raw, rng)
    entries = unzipped(raw)
    names = list(entries)
    # Small entries say what the large ones are: they are the more interesting ones.
    name = rng.choice(sorted(names, key=lambda n: len(entries[n]))[: max(3, len(names) // 2)]
                      if rng.random() < 0.4 else names)  # fmt: skip
    content = entries[name]
    match rng.randrange(12):
        case 0:
            del entries[name]
        case 1:
            entries[rng.choice(names)] = content
        case 2:
            entries[name.replace("/", "//", 1) + rng.choice(["", "x", "/", "\x00"])] = content
        case 3:
            lie = {rng.choice(["size", "packed", "crc", "flags", "method", "at"]):
                   rng.choice(_NUMBERS) & 0x7FFF}  # fmt: skip
            parts = zips.members(entries)
            parts.append(zips.Member(name.encode() + rng.choice([b"", b"2"]), content, **lie))
            return zips.archive(parts)
        case _ if content:
            entries[name] = inner(content, rng)
    return zips.archive(zips.members(entries))


def inner(content: bytes, rng: random.Random) -> bytes:
    if content[:1] == b"{" and rng.random() < 0.9:
        return in_json(content, rng)
    if content[:2] == b"PK":
        return zipped(content, rng)
    return rng.choice(PLAIN)(content, rng)


def with_header(raw: bytes, rng: random.Random) -> bytes:
    """Safetensors: the JSON header changed, and its length made right again."""
    if rng.random() < 0.3:
        return rng.choice(PLAIN)(raw, rng)
    length = int.from_bytes(raw[:8], "little")
    header = rng.choice([in_json, in_json, flipped, respelled])(raw[8 : 8 + length], rng)
    return len(header).to_bytes(8, "little") + header + raw[8 + length :]


def png_or_other(raw: bytes, rng: random.Random) -> bytes:
    """An image in a folder, a chunk of it changed with its checksum made right again."""
    from tests.attacks import zips
    from tests.attacks.doors import unzipped

    entries = unzipped(raw)
    name = rng.choice(list(entries))
    made = bytearray(entries[name])
    if made[:4] == b"\x89PNG" and rng.random() < 0.6:
        at, chunks = 8, []
        while at + 12 <= len(made):
            size = int.from_bytes(made[at : at + 4], "big")
            chunks.append((at, size))
            at += 12 + size
        at, size = rng.choice(chunks)
        if size:
            place = at + 8 + rng.randrange(size)
            made[place] = rng.randrange(256)
        made[at + 8 + size : at + 12 + size] = zlib.crc32(made[at + 4 : at + 8 + size]).to_bytes(4)
        entries[name] = bytes(made)
        return zips.archive(zips.members(entries))
    return zipped(raw, rng)


def text(raw: bytes, rng: random.Random) -> bytes:
    return rng.choice([respelled, respelled, flipped, cut, spliced])(raw, rng)


MUTATORS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "zip": zipped,
    "header": with_header,
    "images": png_or_other,
    "text": text,
    "bytes": lambda raw, rng: rng.choice(PLAIN)(raw, rng),
}


def fuzz_here(
    seeds: list[str],
    mutator: str,
    call: str,
    folder: str,
    mutations: int,
    report: str,
    arguments: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Read `mutations` changed seeds; what went wrong, and how often a file was refused.

    The number of the mutation at hand is kept in `report`, for when the child dies of it.
    """
    from app.domain.errors import PrunescopeError
    from tests.attacks.reader import CALLS

    sound = [Path(seed).read_bytes() for seed in seeds]
    found: dict[str, Any] = {
        "read": 0,
        "refused": 0,
        "faults": [],
        "slowest": [0.0, 0],
        "codes": [],
    }
    path, scratch = Path(folder) / "mutated", Path(folder) / "out"
    configuration.set_hypothesis_home_dir(Path(folder) / "hypothesis")

    @settings(
        max_examples=mutations,
        derandomize="PRUNESCOPE_FUZZ" not in os.environ,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 1 << 40))
    def one(number: int) -> None:
        rng = random.Random(number)
        raw = MUTATORS[mutator](rng.choice(sound), rng)
        path.write_bytes(raw)
        Path(report).write_text(str(number))
        scratch.mkdir(exist_ok=True)
        started = time.process_time()
        try:
            CALLS[call](path=str(path), folder=str(scratch), **(arguments or {}))
            found["read"] += 1
        except PrunescopeError as error:
            found["refused"] += 1
            if not (error.message and error.hint) or len(str(error)) > 4000:
                found["faults"].append([number, f"no sentence: {str(error)[:300]}"])
            found["codes"].append(error.code)
        except Exception as error:
            where = "".join(traceback.format_tb(error.__traceback__)[-3:])
            found["faults"].append([number, f"{type(error).__name__}: {str(error)[:300]}\n{where}"])
        found["slowest"] = max(found["slowest"], [time.process_time() - started, number])

    one()
    found["codes"] = sorted(set(found["codes"]))
    found["faults"] = found["faults"][:10]
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found


def mutated(seeds: list[Path], mutator: str, number: int) -> bytes:
    """The file of one mutation again, to look at what went wrong."""
    rng = random.Random(number)
    return MUTATORS[mutator](rng.choice([seed.read_bytes() for seed in seeds]), rng)
