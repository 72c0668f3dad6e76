"""Headers of many megabytes: an 84 MB one of safetensors once took 38 s to be parsed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.attacks import kit
from tests.attacks.test_sizes_in_safetensors import READ


def tensors(number: int) -> bytes:
    rows = (
        f'"t{n}":{{"dtype":"U8","shape":[1],"data_offsets":[{n},{n + 1}]}}' for n in range(number)
    )
    return ("{" + ",".join(rows) + "}").encode()


HEADERS = {
    "84 MB of tensors": lambda: tensors(1_300_000),
    "84 MB of blanks": lambda: b"{" + b" " * (84 << 20) + b"}",
    "84 MB of metadata": lambda: b'{"__metadata__":{"a":"' + b"x" * (84 << 20) + b'"}}',
    "84 MB of a name": lambda: b'{"' + b"x" * (84 << 20) + b'":0}',
    "84 MB of a shape": lambda: b'{"a":{"dtype":"U8","shape":['
    + b"1," * (42 << 20) + b'1],"data_offsets":[0,1]}}',
    "84 MB of brackets": lambda: b'{"a":' + b"[" * (84 << 20),
    "just below what is read": lambda: b'{"a":' + b"[0]," * ((1 << 20) - 10),
    "a million keys": lambda: json.dumps({"__metadata__": {str(n): "" for n in range(90_000)}})
    .encode(),
    "a megabyte of one number": lambda: b'{"a":{"dtype":"U8","shape":[' + b"9" * (1 << 20)
    + b'],"data_offsets":[0,1]}}',
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("header", HEADERS)
def test_they_are_not_parsed(tmp_path: Path, canary: kit.Canary, kind: str, header: str) -> None:
    raw = HEADERS[header]()
    path = tmp_path / "evil.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(64))
    outcome = READ[kind](path)
    kit.refused(outcome, "", canary, seconds=3, memory_bytes=100 * kit.MIB)
