"""Messages between a child and its worker: four bytes of length, then JSON.

The reading side trusts nothing: length, number of values, depth, numbers and text are all limited
before or right after decoding, so that no message costs the worker much more than its own bytes.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from app.domain.errors import ChildFlooded, ChildMalformed

HEADER = 4
MAX_DEPTH = 64
MAX_VALUES = 2_000_000
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


def encode(message: dict[str, Any]) -> bytes:
    """A frame. NaN and the infinities become null; half characters become question marks.

    Raises TypeError or ValueError for what JSON can't hold.
    """
    text = _dump(message)
    body = text.encode("utf-8", "replace")
    return len(body).to_bytes(HEADER, "big") + body


def _dump(message: Any) -> str:
    try:
        return json.dumps(message, allow_nan=False, ensure_ascii=False, default=_plain)
    except ValueError:
        return json.dumps(_finite(message), allow_nan=False, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """numpy and torch scalars and arrays, paths, sets: as JSON has them."""
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} can't be sent in a message")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def write_all(descriptor: int, data: bytes) -> None:
    """Raises OSError (BrokenPipeError) when the reader has gone."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class Reader:
    """Puts frames together from whatever arrives."""

    def __init__(self, message_bytes: int, total_message_bytes: int) -> None:
        self.message_bytes = message_bytes
        self.total_message_bytes = total_message_bytes
        self.total = 0
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The messages that are complete now.

        Raises ChildFlooded for a message, or a sum of them, over the limit, and ChildMalformed for
        one that can't be read.
        """
        self.total += len(data)
        if self.total > self.total_message_bytes:
            raise ChildFlooded(
                f"The computation sent more than {_megabytes(self.total_message_bytes)} of messages"
                " and was ended.",
                "Choose a coarser grid or fewer units; a model that does this may be hostile.",
            )
        self._buffer += data
        while len(self._buffer) >= HEADER:
            size = int.from_bytes(self._buffer[:HEADER], "big")
            if size > self.message_bytes:
                raise ChildFlooded(
                    f"The computation sent a message of {_megabytes(size)}, and"
                    f" {_megabytes(self.message_bytes)} are allowed.",
                    "Choose fewer units; a model that does this may be hostile.",
                )
            if len(self._buffer) < HEADER + size:
                return
            body = bytes(self._buffer[HEADER : HEADER + size])
            del self._buffer[: HEADER + size]
            yield decode(body)

    @property
    def half_read(self) -> bool:
        return bool(self._buffer)


def decode(body: bytes) -> dict[str, Any]:
    """Raises ChildMalformed unless the bytes are one JSON object of moderate size and depth."""
    openers = body.count(b"[") + body.count(b"{")
    if openers + body.count(b",") > MAX_VALUES:
        raise _malformed(f"it holds more than {MAX_VALUES} values")
    try:
        message = json.loads(body.decode("utf-8"), parse_constant=_refuse, parse_float=_number)
    except RecursionError:
        raise _malformed("it is nested too deeply") from None
    except ValueError:
        raise _malformed("it is not JSON") from None
    if not isinstance(message, dict):
        raise _malformed("it is not an object")
    if openers > MAX_DEPTH and _depth(message) > MAX_DEPTH:
        raise _malformed("it is nested too deeply")
    if _HALF_CHARACTER.search(body):
        try:
            json.dumps(message, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _malformed("it holds half a character") from None
    return message


def _malformed(why: str) -> ChildMalformed:
    return ChildMalformed(
        f"The computation sent a message that can't be read: {why}.",
        "Retry the job; a model that does this again may be hostile.",
    )


def _refuse(constant: str) -> float:
    raise ValueError(constant)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _depth(message: Any) -> int:
    depth, level = 0, [message]
    while level and depth <= MAX_DEPTH:
        depth += 1
        inner: list[Any] = []
        for item in level:
            values = item.values() if isinstance(item, dict) else item
            inner += [value for value in values if isinstance(value, dict | list)]
        level = inner
    return depth


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB" if size >= 1 << 20 else f"{size} bytes"
