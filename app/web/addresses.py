"""Addresses inside this server, for redirects that can't lead anywhere else."""

from __future__ import annotations

from urllib.parse import quote

from starlette.types import Scope

_HOME = "/"


def own_address(scope: Scope) -> str:
    """Path and query of a request, quoted."""
    query = scope["query_string"].decode("latin-1")
    return quote(scope["path"], safe="/:@!$&'()*+,;=~") + (f"?{query}" if query else "")


def local_address(value: str | None) -> str:
    """`value` when it is a path on this server, `/` otherwise.

    Browsers take `//host` and `/\\host` for another server, and drop tabs and newlines first.
    """
    if not value or not value.startswith("/") or value.startswith(("//", "/\\")):
        return _HOME
    if any(ord(character) < 0x21 or character == "\\" for character in value):
        return _HOME
    return value


def sign_in_address(scope: Scope) -> str:
    """The sign-in page that leads back to the page that was asked for."""
    target = local_address(own_address(scope))
    return "/sign-in" if target == _HOME else f"/sign-in?next={quote(target, safe='')}"
