"""System calls that the standard library doesn't have, by number."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

LINUX = sys.platform.startswith("linux")
MACHINE = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())

_libc = ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | None) -> int:
    """Raises OSError."""
    passed = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    result = _libc.syscall(ctypes.c_long(number), *passed)
    if result < 0:
        _fail()
    return int(result)


def prctl(option: int, *arguments: int) -> int:
    """Raises OSError."""
    passed = [ctypes.c_ulong(item) for item in (*arguments, 0, 0, 0, 0)[:4]]
    result = _libc.prctl(ctypes.c_int(option), *passed)
    if result < 0:
        _fail()
    return int(result)


def capset(header: bytes, data: bytes) -> None:
    """Raises OSError."""
    if _libc.capset(ctypes.create_string_buffer(header), ctypes.create_string_buffer(data)) < 0:
        _fail()


def _fail() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))
