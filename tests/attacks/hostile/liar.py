"""Writes to the descriptor of messages by itself."""

from __future__ import annotations

import fcntl
import json
import os
import time

from worker.inside.job import InsideJob


def run(job: InsideJob) -> dict[str, object]:
    out = _messages()
    how = job.arguments["how"]
    if how == "half":
        _write(out, b"\0\0\0\x64{")
        time.sleep(600)
    if how == "half and end":
        _write(out, b"\0\0\0\x64{")
        os._exit(0)
    if how == "silent":
        os._exit(0)
    if how == "after the end":
        _write(out, _frame(b'{"result": {}}') + _frame(b'{"tell": "more", "body": {}}'))
        os._exit(0)
    if how == "two ends":
        _write(out, _frame(b'{"result": {}}') * 2)
        os._exit(0)
    if how == "closed":
        os.close(out)
        time.sleep(600)
    _write(out, FRAMES[how]())
    os._exit(0)


def _frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def _tell(body: str) -> bytes:
    return _frame(b'{"tell": "said", "body": ' + body.encode() + b"}")


FRAMES = {
    "not JSON": lambda: _frame(b"hostile"),
    "not text": lambda: _frame(b'{"result": "\xff\xfe"}'),
    "a list": lambda: _frame(b"[1, 2]"),
    "a number": lambda: _frame(b"7"),
    "nothing": lambda: _frame(b""),
    "nan": lambda: _tell('{"loss": NaN}'),
    "infinity": lambda: _tell('{"loss": -Infinity}'),
    "overflow": lambda: _tell('{"loss": 1e999}'),
    "long number": lambda: _tell('{"loss": ' + "9" * 100_000 + "}"),
    "half a character": lambda: _tell('{"name": "\\ud800"}'),
    "nested": lambda: _tell('{"a": ' * 100 + "1" + "}" * 100),
    "deeply nested": lambda: _tell("[" * 100_000 + "]" * 100_000),
    "values": lambda: _tell('{"a": [' + "[]," * 3_000_000 + "[]]}"),
    "no body": lambda: _frame(b'{"tell": "said"}'),
    "body is a list": lambda: _tell("[]"),
    "kind is a number": lambda: _frame(b'{"tell": 7, "body": {}}'),
    "long kind": lambda: _frame(json.dumps({"tell": "x" * 101, "body": {}}).encode()),
    "result is a list": lambda: _frame(b'{"result": [1]}'),
    "unknown error": lambda: _frame(b'{"error": {"class": "LeaseLost", "message": "x"}}'),
    "stopped": lambda: _frame(b'{"error": {"class": "Stopped", "message": "x"}}'),
    "announced too large": lambda: b"\xff\xff\xff\xff",
}


def _messages() -> int:
    """The only pipe of this process that isn't its output."""
    for number in range(3, 64):
        try:
            mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError:
            continue
        if mode == os.O_WRONLY:
            return number
    raise OSError("no descriptor for messages")


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
