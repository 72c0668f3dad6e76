"""Small arrays as text, to be kept and read again without trust in what was kept.

zlib over a list of names, types and shapes, and the bytes of the arrays one after the other.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]

_TYPES = frozenset(["|b1", "|i1", "|u1", "<i2", "<i4", "<i8", "<f4", "<f8"])
_LENGTH = 4
_LEAST = 2**12
"""Bytes for the list itself, beside those of the arrays."""


def pack(arrays: Mapping[str, Any], limit: int) -> str | None:
    """Booleans, integers and floats of any shape, as text; None where they take over `limit`."""
    kept = {name: np.asarray(each) for name, each in arrays.items()}
    if sum(each.nbytes for each in kept.values()) > limit:
        return None
    listed = [[name, each.dtype.str, list(each.shape)] for name, each in kept.items()]
    head = json.dumps(listed).encode()
    body = b"".join(each.tobytes() for each in kept.values())
    data = len(head).to_bytes(_LENGTH, "little") + head + body
    return base64.b64encode(zlib.compress(data, 6)).decode()


def unpack(text: Any, limit: int) -> Arrays:
    """What was packed, in memory of its own. Raises ValueError for all else, and beyond `limit`."""
    try:
        expand = zlib.decompressobj()
        data = expand.decompress(base64.b64decode(text, validate=True), limit + _LEAST)
        if not expand.eof or expand.unused_data:
            raise ValueError("cut off, or too large")
        at = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
        found: Arrays = {}
        for name, kind, shape in json.loads(data[_LENGTH:at]):
            if not isinstance(name, str) or name in found or kind not in _TYPES:
                raise ValueError(f"{name!r} of type {kind!r}")
            if not all(isinstance(each, int) and each >= 0 for each in shape):
                raise ValueError(f"shape {shape!r}")
            count = math.prod(shape)
            dtype = np.dtype(kind)
            if count * dtype.itemsize > len(data) - at:
                raise ValueError("cut off")
            found[name] = np.frombuffer(data, dtype, count, at).reshape(shape).copy()
            at += count * dtype.itemsize
        if at != len(data):
            raise ValueError("more than is listed")
    except (TypeError, RecursionError, zlib.error) as error:
        raise ValueError(str(error)) from error
    return found
