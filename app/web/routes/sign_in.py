"""Signing in and out: one token, one cookie."""

from __future__ import annotations

import math
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from app.web.addresses import local_address
from app.web.contexts import PageContext, SignInState
from app.web.security import bounce
from app.web.services import Given, Services
from app.web.sessions import SESSION_SECONDS

router = APIRouter(include_in_schema=False)

WRONG = "That is not the token of this server."
WAIT = "Too many wrong tokens. Try again in {seconds} s."
MAX_FORM_BYTES = 16 * 1024


@router.get("/sign-in")
def sign_in_page(
    request: Request,
    given: Given,
    token: Annotated[str | None, Query()] = None,
    following: Annotated[str | None, Query(alias="next")] = None,
) -> Response:
    if token is not None:
        return _try(request, given, token, following)
    if _signed_in(request, given):
        return RedirectResponse(local_address(following), status_code=303)
    return _page(given, following)


@router.post("/sign-in")
async def sign_in(request: Request, given: Given) -> Response:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return _page(given, None, WRONG, 413)
    form = parse_qs(body.decode("utf-8", "replace"))
    return _try(request, given, form.get("token", [""])[0], form.get("next", [""])[0])


@router.post("/sign-out")
def sign_out(given: Given) -> Response:
    response = RedirectResponse("/sign-in", status_code=303)
    response.delete_cookie(given.sessions.cookie_name, path="/", httponly=True, samesite="strict")
    return response


def _try(request: Request, given: Services, token: str, following: str | None) -> Response:
    address = request.client.host if request.client else ""
    wait = given.failures.wait(address)
    if wait > 0:
        seconds = math.ceil(wait)
        response = _page(given, following, WAIT.format(seconds=seconds), 429)
        response.headers["Retry-After"] = str(seconds)
        return response
    if not given.sessions.is_token(token.strip()):
        given.failures.failed(address)
        return _page(given, following, WRONG, 401)
    target = local_address(following)
    response = bounce(request, target) or RedirectResponse(target, status_code=303)
    response.set_cookie(
        given.sessions.cookie_name,
        given.sessions.issue(),
        max_age=SESSION_SECONDS,
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


def _signed_in(request: Request, given: Services) -> bool:
    cookie = request.cookies.get(given.sessions.cookie_name)
    return cookie is not None and given.sessions.is_valid(cookie)


def _page(given: Services, following: str | None, error: str = "", status: int = 200) -> Response:
    state = SignInState(next=local_address(following), error=error)
    return given.pages.render("sign_in.html", PageContext(title="Sign in"), state, status)
