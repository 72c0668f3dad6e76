"""Landlock: which files a process may still open, enforced by the kernel on itself.

Source: Documentation/userspace-api/landlock.rst of Linux. Each version of the interface adds
rights; those that a kernel doesn't know can't be handled, and are left out.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from worker.sandbox import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1

EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
REMOVE_DIR = 1 << 4
REMOVE_FILE = 1 << 5
MAKE_DIR = 1 << 7
MAKE_REG = 1 << 8
REFER = 1 << 13
TRUNCATE = 1 << 14
_RIGHTS_OF_ABI = {1: (1 << 13) - 1, 2: REFER, 3: TRUNCATE, 5: 1 << 15}
_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE

READ = READ_FILE | READ_DIR
OWN = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
"""No right to make links, sockets, pipes or devices, and none to run a program."""

_NETWORK = 0b11
_SCOPES = 0b11
_NETWORK_ABI, _SCOPE_ABI = 4, 6


@cache
def landlock_abi() -> int:
    """The version that this kernel offers, 0 for none. Changes nothing."""
    if not kernel.LINUX:
        return 0
    try:
        return kernel.syscall(_CREATE_RULESET, 0, 0, _VERSION_FLAG)
    except OSError:
        return 0


def handled_rights(abi: int) -> int:
    return sum(rights for since, rights in _RIGHTS_OF_ABI.items() if since <= abi)


class Ruleset:
    """Collect what stays allowed, then `enforce()`: everything else is denied from then on."""

    def __init__(self, abi: int) -> None:
        """Raises OSError."""
        self._rights = handled_rights(abi)
        words = [self._rights]
        if abi >= _NETWORK_ABI:
            words.append(_NETWORK)
        if abi >= _SCOPE_ABI:
            words.append(_SCOPES)
        attributes = ctypes.create_string_buffer(struct.pack(f"={len(words)}Q", *words))
        self._descriptor = kernel.syscall(_CREATE_RULESET, attributes, 8 * len(words), 0)

    def allow(self, place: Path | int, rights: int) -> None:
        """A folder with all below it, or a file; by path (absent ones are skipped) or descriptor.

        Raises OSError.
        """
        if isinstance(place, int):
            self._add(place, rights)
            return
        try:
            descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return
        try:
            self._add(descriptor, rights)
        finally:
            os.close(descriptor)

    def allow_all(self, places: Iterable[Path], rights: int) -> None:
        for place in places:
            self.allow(place, rights)

    def _add(self, descriptor: int, rights: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE_RIGHTS
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights & self._rights, descriptor))
        kernel.syscall(_ADD_RULE, self._descriptor, _RULE_PATH_BENEATH, rule, 0)

    def enforce(self) -> None:
        """Needs no_new_privs. Raises OSError."""
        kernel.syscall(_RESTRICT_SELF, self._descriptor, 0)
        os.close(self._descriptor)
