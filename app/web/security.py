"""The gate in front of everything: pure ASGI, so that it decides before a body is read.

In this order: the Host header has to be ours; an unsafe request that comes with a cookie has to
come from our own pages; all but a few addresses need the token. It decides on `scope["path"]`,
which is what the router matches as well.
"""

from __future__ import annotations

from collections.abc import Collection
from html import escape
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.addresses import local_address, own_address, sign_in_address
from app.web.headers import SECURITY_HEADERS
from app.web.hosts import AllowedHosts
from app.web.problems import problem, problem_response, wants_page
from app.web.sessions import Sessions
from app.web.static import unversioned

STATIC = "/static/"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_JSON_BYTES = 8 * 1024 * 1024


class SecurityMiddleware:
    """Host check, same-origin check, sign-in and headers.

    `open_paths` need no token, nor do the files `open_static` under /static/.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        sessions: Sessions,
        hosts: AllowedHosts,
        open_paths: Collection[str],
        open_static: Collection[str] = (),
    ) -> None:
        self.app = app
        self.sessions = sessions
        self.hosts = hosts
        self.open_paths = frozenset(open_paths)
        self.open_static = frozenset(open_static)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            # There are no web sockets here; closing before accepting answers 403.
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS:
                    headers.setdefault(name, value)
                if not scope["path"].startswith(STATIC):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self.refusal(scope)
        await (refusal or self.app)(scope, receive, send_with_headers)

    def refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that may not pass, or None."""
        request = HTTPConnection(scope)
        if request.headers.get("host", "") not in self.hosts:
            return _refused(
                421,
                "Unknown host name",
                "The request names a host that this server does not answer to.",
                "Open it under the address that it printed at its start, or name further hosts in "
                "PRUNESCOPE_ALLOWED_HOSTS.",
                "unknown-host",
            )
        bearer = _bearer_token(request)
        by_token = bearer is not None and self.sessions.is_token(bearer)
        cookie = request.cookies.get(self.sessions.cookie_name)
        by_cookie = not by_token and cookie is not None and self.sessions.is_valid(cookie)
        is_open = self._is_open(scope["path"])
        if (
            scope["method"] not in SAFE_METHODS
            and not by_token
            and not _same_origin(request, strict=by_cookie)
        ):
            return _refused(
                403,
                "Refused",
                "The request does not come from a page of this server.",
                "Programs send the token as Authorization: Bearer instead of a cookie.",
                "cross-origin",
            )
        if by_token or by_cookie or is_open:
            return None
        return _sign_in_first(request, wrong=bearer is not None)

    def _is_open(self, path: str) -> bool:
        if path.startswith(STATIC):
            return unversioned(path.removeprefix(STATIC)) in self.open_static
        return path in self.open_paths


class BodyLimitMiddleware:
    """JSON bodies are small. Uploads (`unlimited`) have a limit of their own."""

    def __init__(
        self, app: ASGIApp, *, unlimited: Collection[str], limit: int = MAX_JSON_BYTES
    ) -> None:
        self.app = app
        self.unlimited = frozenset(unlimited)
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.unlimited:
            await self.app(scope, receive, send)
            return
        announced = HTTPConnection(scope).headers.get("content-length", "0")
        sentence = f"The body is larger than {self.limit // (1024 * 1024)} MiB."
        if not announced.isdigit() or int(announced) > self.limit:
            document = problem(413, "The request is too large", sentence, code="too-large")
            await problem_response(document)(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                raise HTTPException(413, sentence)
            return message

        await self.app(scope, limited, send)


def _bearer_token(request: HTTPConnection) -> str | None:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else None


def _same_origin(request: HTTPConnection, *, strict: bool) -> bool:
    """Whether an unsafe request comes from one of our pages.

    Browsers say so in Sec-Fetch-Site, older ones in Origin. A request with neither comes from a
    program; `strict` refuses it, because programs have no business with cookies.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()
    return not strict


def _refused(status: int, title: str, message: str, hint: str, code: str) -> Response:
    return problem_response(problem(status, title, f"{message} {hint}", code=code, hint=hint))


def _sign_in_first(request: HTTPConnection, *, wrong: bool) -> Response:
    scope = request.scope
    if wants_page(scope) and scope["method"] in SAFE_METHODS:
        return bounce(request) or RedirectResponse(sign_in_address(scope), status_code=303)
    message = "The token is wrong." if wrong else "This call needs the token."
    hint = (
        "Send it as Authorization: Bearer TOKEN. The server keeps it in the file `token` of its "
        "data directory."
    )
    document = problem(401, "Sign in first", f"{message} {hint}", code="unauthorised", hint=hint)
    return problem_response(document, {"WWW-Authenticate": "Bearer"})


def bounce(request: HTTPConnection, to: str | None = None) -> Response | None:
    """A page that at once loads `to` (or itself) again, when a link on another site led here.

    Browsers keep SameSite=Strict cookies back on such a request, and on its redirects too; coming
    from our own page they send them.
    """
    if request.headers.get("sec-fetch-site") != "cross-site":
        return None
    target = local_address(own_address(request.scope) if to is None else to)
    return HTMLResponse(
        f'<!doctype html><title>Prunescope</title><meta http-equiv="refresh" '
        f'content="0;url={escape(target)}">'
    )
