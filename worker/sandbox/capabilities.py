"""Give up everything that makes root root, for good."""

from __future__ import annotations

import struct
from contextlib import suppress

from worker.sandbox import kernel

_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63
# No root by user id, no capabilities kept over a change of it, none ambient; and locked.
_SECUREBITS = 0b1110_1111


def drop_capabilities() -> None:
    """All of them, from all sets; and no program run later can bring any back.

    Raises OSError when the process can't be kept from gaining rights.
    """
    if not kernel.LINUX:
        return
    for capability in range(_LAST_CAPABILITY + 1):
        with suppress(OSError):
            kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
    with suppress(OSError):
        kernel.prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_CLEAR_ALL)
    with suppress(OSError):
        kernel.prctl(kernel.PR_SET_SECUREBITS, _SECUREBITS)
    kernel.capset(struct.pack("=Ii", _VERSION_3, 0), bytes(24))
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
