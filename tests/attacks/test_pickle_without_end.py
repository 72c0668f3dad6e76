"""Pickles that name nothing evil, and are a bomb all the same: references, depth, repetition."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import kit, pickles
from tests.attacks.test_sizes_in_pth import state_dict, tensor, written

FORMS = ["zip", "before zips"]


def key(name: str) -> bytes:
    raw = name.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def own_dictionary(keys: int) -> bytes:
    """A dictionary whose every entry is the dictionary itself."""
    pairs = b"".join(key(f"k{n}") + b"h\x01" for n in range(keys))
    return b"}q\x01(" + pairs + b"u"


def ladder(rungs: int, keys: int) -> bytes:
    """A dictionary of one dictionary many times over, which is the same again: keys^rungs paths."""
    made = b"}" + key("w") + tensor() + b"s" + b"q\x01"
    for _ in range(rungs):
        made += b"0}(" + b"".join(key(f"k{n}") + b"h\x01" for n in range(keys)) + b"uq\x01"
    return made


BOMBS = {
    "a dictionary in itself": own_dictionary(3000),
    "a dictionary in itself, wide": own_dictionary(300_000),
    "a ladder": ladder(3, 2000),
    "a long ladder": ladder(300, 30),
    "a million laughs": b"]q\x01(" + b"N" * 1000 + b"e"
    + b"0](".join([b"", *[b"h\x01" * 1000 + b"eq\x01"] * 300]),
    "tuples within tuples": b")" + b"\x85" * 1_900_000,
    "lists within lists": b"]" * 190_000 + b"a" * 189_999,
    "dictionaries within dictionaries": (b"}" + key("a")) * 90_000 + b"N" + b"s" * 90_000,
    "marks without end": b"(" * 190_000 + b"N",
    "values without end": b"N" * 3_000_000,
    "the memo without end": b"N" + b"\x94" * 1_900_000,
    "popping without end": b"N0" * 2_000_000 + b"N",
    "one text doubled": pickles.text("x" * 60_000_000),
    "a number of a megabyte": b"\x8b" + (1 << 20).to_bytes(4, "little") + b"\x7f" * (1 << 20),
    "a number in letters": b"L" + b"9" * (1 << 20) + b"L\n",
    "an integer in letters": b"I" + b"9" * 4299 + b"\n",
    "a length that is a lie": b"X\xff\xff\xff\x7fabc",
    "a length of 2^63": b"\x8d" + b"\xff" * 8,
    "a frame that is a lie": b"\x95" + b"\xff" * 8 + b"N",
    "no end": b"N",
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bomb", BOMBS)
def test_it_ends_in_seconds(tmp_path: Path, canary: kit.Canary, form: str, bomb: str) -> None:
    path = written(tmp_path, BOMBS[bomb], form)
    outcome = kit.read_model(path, seconds=25)
    kit.harmless(outcome, canary, seconds=20, memory_bytes=400 * kit.MIB)
    if outcome.error:
        kit.refused(outcome, seconds=20, memory_bytes=400 * kit.MIB)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bomb", BOMBS)
def test_beside_sound_weights(tmp_path: Path, canary: kit.Canary, form: str, bomb: str) -> None:
    body = b"}(" + key("other") + BOMBS[bomb] + key("model") + state_dict(tensor()) + b"u"
    outcome = kit.read_model(written(tmp_path, body, form), seconds=25)
    kit.harmless(outcome, canary, seconds=20, memory_bytes=400 * kit.MIB)
