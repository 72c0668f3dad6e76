"""One shape for everything that goes wrong: RFC 9457 problems, and a page for people.

`detail` says what is wrong and what to do about it; `hint` repeats the second half for clients that
show it apart; `errors` names the wrong fields.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.domain.errors import NotFound, PrunescopeError
from app.web.addresses import sign_in_address
from app.web.sentences import as_sentence, field_name, pointer

MEDIA_TYPE = "application/problem+json"

_DETAILS = {
    400: "The request's body can't be read. Send JSON of the form that /docs describes.",
    404: "There is nothing at this address. The calls are listed at /docs.",
    405: "This address exists, but not for this method. The calls are listed at /docs.",
}

log = logging.getLogger("prunescope.web")

HtmlProblem = Callable[[Request, Mapping[str, Any]], Response]


def problem(
    status: int,
    title: str,
    detail: str,
    *,
    code: str,
    hint: str = "",
    errors: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """The members of a problem document, the optional ones only when there is something to say."""
    document: dict[str, Any] = {
        "type": f"urn:prunescope:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if hint:
        document["hint"] = hint
    if errors:
        document["errors"] = list(errors)
    return document


UNEXPECTED = problem(
    500,
    "Something went wrong on the server",
    "The server met an error that it did not expect. Its log has the details.",
    code="internal",
)


def problem_of(error: PrunescopeError) -> dict[str, Any]:
    errors = [
        {"field": name, "pointer": pointer(name.split(".")), "detail": text}
        for name, text in error.fields.items()
    ]
    return problem(
        error.status,
        error.title,
        f"{error.message} {error.hint}".strip(),
        code=error.code,
        hint=error.hint,
        errors=errors,
    )


class _ProblemResponse(JSONResponse):
    """Requests may hold halves of characters, which no answer can repeat."""

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def problem_response(
    document: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    return _ProblemResponse(
        document,
        status_code=document["status"],
        headers={"Cache-Control": "no-store", **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def wants_page(scope: Scope) -> bool:
    """Whether a person's browser asked for a page, rather than a program for data."""
    if scope["path"].startswith(("/api/", "/static/")) or scope["path"] == "/openapi.json":
        return False
    headers = Headers(scope=scope)
    accept = headers.get("accept", "").lower()
    # A page that fetches itself again takes anything, but only browsers send Sec-Fetch-Mode.
    return "text/html" in accept or ("*/*" in accept and "sec-fetch-mode" in headers)


def install(app: FastAPI, page: HtmlProblem) -> None:
    """Turn every error that is meant for people into a problem; `page` draws it for them."""

    def answer(
        request: Request, document: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> Response:
        if not wants_page(request.scope):
            return problem_response(document, headers)
        if document["status"] == 401:
            return RedirectResponse(sign_in_address(request.scope), status_code=303)
        response = page(request, document)
        response.headers.update(headers or {})
        return response

    def on_prunescope_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, PrunescopeError)
        return answer(request, problem_of(error))

    def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        phrase = HTTPStatus(error.status_code).phrase.capitalize()
        said = error.detail if error.detail.lower() != phrase.lower() else ""
        detail = _DETAILS.get(error.status_code, "") or said or f"{phrase}."
        document = problem(error.status_code, phrase, detail, code=phrase.lower().replace(" ", "-"))
        return answer(request, document, error.headers)

    def on_invalid_request(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = error.errors()
        if faults and all(fault["loc"][:1] == ("path",) for fault in faults):
            asked = request.scope["path"]
            return answer(
                request,
                problem_of(NotFound(f"There is nothing at {asked}.", "Ids are whole numbers.")),
            )
        errors = [
            {
                "field": field_name(fault["loc"]),
                "pointer": pointer(fault["loc"][1:]),
                "detail": as_sentence(fault),
            }
            for fault in faults
        ]
        shown = [
            f"{entry['field']}: {entry['detail']}" if entry["field"] else entry["detail"]
            for entry in errors[:5]
        ]
        if len(errors) > len(shown):
            shown.append(f"And {len(errors) - len(shown)} more.")
        document = problem(
            422,
            "The request can't be carried out",
            " ".join(shown),
            code="invalid-input",
            hint="The fields and their ranges are described at /docs.",
            errors=errors,
        )
        return answer(request, document)

    app.add_exception_handler(PrunescopeError, on_prunescope_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid_request)


class LastResort:
    """Answers 500 to what nobody expected, and writes it to the log.

    Not as an exception handler: those let the exception go on to the server, which then closes the
    connection under the client's next request.
    """

    def __init__(self, app: ASGIApp, page: HtmlProblem) -> None:
        self.app = app
        self.page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            if scope["type"] != "http" or started:
                raise
            log.exception("%s %s failed", scope["method"], scope["path"])
            response: Response = problem_response(UNEXPECTED)
            if wants_page(scope):
                response = await run_in_threadpool(self.page, Request(scope), UNEXPECTED)
            await response(scope, receive, send)
