"""Which names this server answers to: the defence against DNS rebinding.

A page on another site can make its own name resolve to this machine, but it can't change the Host
header that the browser then sends.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(\d{1,5}))?")
_WILDCARDS = ("0.0.0.0", "::", "")


def split_host(value: str) -> tuple[str, str] | None:
    """`name[:port]` in lower case as `(name, port)`, or None when it is neither."""
    match = _HOST.fullmatch(value.strip().lower())
    return (match[1].rstrip("."), match[2] or "") if match else None


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name and not name.startswith("[") else name


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


class AllowedHosts:
    """The exact names in a Host header that are ours.

    The loopback names, the host that the server is bound to, and what the operator added, with any
    port unless the operator named one: behind a tunnel the port is another one, and rebinding is a
    matter of names alone. A server bound to all addresses also answers to any literal IP address,
    because there is no name in it that could be rebound.
    """

    def __init__(self, bound: str, extra: Iterable[str] = ()) -> None:
        self._names = {"127.0.0.1", "localhost", "[::1]"}
        self._any_address = bound in _WILDCARDS
        if not self._any_address:
            self._names.add(_bracketed(bound.lower()))
        self._names.update(_bracketed(name.lower()) for name in extra)

    def __contains__(self, value: str) -> bool:
        parts = split_host(value)
        if parts is None:
            return False
        name, port = parts
        if name in self._names or f"{name}:{port}" in self._names:
            return True
        return self._any_address and _is_address(name)
