"""The gate: who gets in, from where, and what every answer carries."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.web.headers import CONTENT_SECURITY_POLICY
from app.web.sessions import Sessions
from tests.contract.site import TOKEN, Site, problem, running

HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("gate") / "data", allowed_hosts=["prune.example"]) as on:
        yield on


def test_everything_but_health_and_sign_in_needs_the_token(site: Site):
    paths = [
        "/api/models", "/api/jobs", "/api/models/1/file", "/openapi.json", "/docs", "/",
        "/analyses/1", "/static/js/home.js", "/static/plotly.min.js", "/nothing", "/api/nothing",
        "/healthz/", "/sign-in/x", "//healthz",
    ]  # fmt: skip
    for path in paths:
        answer = site.anonymous.get(path)
        assert problem(answer, 401)["code"] == "unauthorised", path
        assert answer.headers["www-authenticate"] == "Bearer"
    assert site.anonymous.get("/healthz").status_code == 200
    assert site.anonymous.get("/sign-in", headers=HTML).status_code == 200


@pytest.mark.parametrize(
    "header", [f"Bearer {TOKEN}x", "Bearer", f"Basic {TOKEN}", TOKEN, "Bearer é"]
)
def test_wrong_tokens_stay_outside(site: Site, header: str):
    headers = {"Authorization": header.encode("latin-1")}
    problem(site.anonymous.get("/api/models", headers=headers), 401)


def test_the_token_opens_the_api(site: Site):
    assert site.http.get("/api/models").status_code == 200
    lower = {"Authorization": f"bearer {TOKEN}"}
    assert site.anonymous.get("/api/models", headers=lower).status_code == 200


def test_pages_lead_to_sign_in_and_back(site: Site):
    answer = site.anonymous.get("/analyses/7?plan=3&unit=a.b", headers=HTML)
    assert answer.status_code == 303
    where = httpx.URL(answer.headers["location"])
    assert where.path == "/sign-in"
    assert where.params["next"] == "/analyses/7?plan=3&unit=a.b"
    with httpx.Client(base_url=site.url, headers=HTML) as browser:
        form = browser.get(answer.headers["location"]).text
        following = re.search(r'name="next" value="([^"]*)"', form)
        assert following
        assert following[1].replace("&amp;", "&") == "/analyses/7?plan=3&unit=a.b"
        signed = browser.post(
            "/sign-in", data={"token": TOKEN, "next": "/analyses/7?plan=3&unit=a.b"}
        )
        assert signed.status_code == 303
        assert signed.headers["location"] == "/analyses/7?plan=3&unit=a.b"
        assert browser.get("/").status_code == 200


def test_one_click_signs_in_with_a_cookie_that_is_not_the_token(site: Site):
    with httpx.Client(base_url=site.url, headers=HTML) as browser:
        answer = browser.get("/sign-in", params={"token": TOKEN, "next": "/jobs"})
        assert answer.status_code == 303
        assert answer.headers["location"] == "/jobs"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Path=/" in cookie
        assert TOKEN not in cookie
        assert browser.get("/jobs").status_code == 200
        assert browser.get("/api/models").status_code == 200
        again = browser.get("/sign-in", params={"next": "/jobs"})
        assert again.headers["location"] == "/jobs", "who is signed in need not sign in"


@pytest.mark.parametrize(
    "following",
    ["//evil.example", "https://evil.example/", "/\\evil.example", "\\\\evil.example", "jobs",
     "/\t/evil.example", "javascript:alert(1)", "", "/a\r\nX-Evil: 1"],
)  # fmt: skip
def test_sign_in_leads_only_to_pages_of_this_server(site: Site, following: str):
    answer = site.anonymous.get("/sign-in", params={"token": TOKEN, "next": following})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    assert "x-evil" not in answer.headers


def test_a_wrong_token_on_the_form_is_told_and_slowed_down(tmp_path: Path):
    with running(tmp_path / "data") as site:
        for _ in range(10):
            answer = site.anonymous.post("/sign-in", data={"token": "no"})
            assert answer.status_code == 401
            assert "not the token" in answer.text
            assert "set-cookie" not in answer.headers
        slowed = site.anonymous.post("/sign-in", data={"token": TOKEN})
        assert slowed.status_code == 429
        assert 0 < int(slowed.headers["retry-after"]) <= 60
        assert site.http.get("/api/models").status_code == 200, "programs are not held up"


def test_signing_out_ends_it(site: Site):
    with site.browser() as browser:
        assert browser.get("/").status_code == 200
        assert browser.post("/sign-out").status_code == 303
        assert browser.get("/").status_code == 303


def test_forged_and_foreign_cookies_stay_outside(site: Site):
    sessions = Sessions(TOKEN)
    good = sessions.issue()
    issued, nonce, mac = good.split(".")
    forged = [
        f"{int(issued) + 1}.{nonce}.{mac}", f"{issued}.{nonce}.{'0' * 64}", mac, "", "..", TOKEN,
        Sessions("another token").issue(),
        Sessions(TOKEN, clock=lambda: time.time() - 31 * 24 * 3600).issue(),
    ]  # fmt: skip
    for value in forged:
        cookie = {"Cookie": f"{sessions.cookie_name}={value}"}
        assert site.anonymous.get("/api/models", headers=cookie).status_code == 401, value
    cookie = {"Cookie": f"{sessions.cookie_name}={good}"}
    assert site.anonymous.get("/api/models", headers=cookie).status_code == 200


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1", True), ("127.0.0.1:8000", True), ("localhost:1", True), ("LOCALHOST", True),
        ("[::1]:8000", True), ("prune.example", True), ("prune.example:443", True),
        ("evil.example", False), ("127.0.0.1.evil.example", False), ("prune.example.evil", False),
        ("localhost@evil.example", False), ("xlocalhost", False), ("192.168.1.7", False),
        ("", False), ("localhost, evil.example", False),
    ],
)  # fmt: skip
def test_hosts(site: Site, host: str, ours: bool):
    answer = site.http.get("/healthz", headers={"Host": host})
    if ours:
        assert answer.status_code == 200
    else:
        assert problem(answer, 421)["code"] == "unknown-host"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 404),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "SELF"}, 403),
        ({"Origin": "SELF"}, 404),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 403),
    ],
)
def test_unsafe_requests_with_a_cookie_come_from_our_pages(
    site: Site, headers: dict[str, str], status: int
):
    with site.browser() as browser:
        cookies = dict(browser.cookies)
    sent = {name: site.url if value == "SELF" else value for name, value in headers.items()}
    with httpx.Client(base_url=site.url, cookies=cookies) as plain:
        for method in ("POST", "DELETE"):
            path = "/api/jobs/999/cancel" if method == "POST" else "/api/models/999"
            problem(plain.request(method, path, headers=sent), status)


def test_programs_with_a_token_need_no_origin(site: Site):
    problem(site.http.delete("/api/models/999"), 404)
    problem(site.http.delete("/api/models/999", headers={"Origin": "https://x.example"}), 404)


def test_another_site_cannot_sign_a_person_in_by_form(site: Site):
    headers = {"Sec-Fetch-Site": "cross-site"}
    problem(site.anonymous.post("/sign-in", data={"token": TOKEN}, headers=headers), 403)


def test_a_link_on_another_site_still_arrives_signed_in(site: Site):
    """Strict cookies are kept back on such a request; the page asks again from here."""
    headers = HTML | {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    answer = site.anonymous.get("/analyses/3?plan=1&x=%22%3E", headers=headers)
    assert answer.status_code == 200
    assert 'content="0;url=/analyses/3?plan=1&amp;x=%22%3E"' in answer.text
    foreign = site.anonymous.get("//evil.example/", headers=headers)
    assert "evil" not in foreign.text
    signed = site.anonymous.get(
        "/sign-in", params={"token": TOKEN, "next": "/jobs"}, headers=headers
    )
    assert signed.status_code == 200
    assert "set-cookie" in signed.headers
    assert "url=/jobs" in signed.text
    assert TOKEN not in signed.text


@pytest.mark.parametrize(
    "path", ["/", "/api/models", "/api/nothing", "/healthz", "/sign-in", "/static/js/theme.js"]
)
@pytest.mark.parametrize("signed_in", [True, False])
def test_every_answer_carries_the_headers(site: Site, path: str, signed_in: bool):
    answer = (site.http if signed_in else site.anonymous).get(path)
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers
    scripts = CONTENT_SECURITY_POLICY.split("script-src ")[1].split(";")[0]
    assert scripts == "'self'"


def test_the_body_of_a_stranger_is_not_read(site: Site):
    """The refusal comes while the announced gigabyte has not even been asked for."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=5) as raw:
        raw.sendall(
            b"POST /api/models HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = raw.recv(4096)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert not list((site.settings.data_dir / "incoming").iterdir())


@pytest.mark.parametrize("announced", [True, False])
def test_json_bodies_are_limited(site: Site, announced: bool):
    body = b'{"name": "' + b"x" * (9 << 20) + b'"}'
    content = body if announced else iter([body[:5_000_000], body[5_000_000:]])
    answer = site.http.post(
        "/api/plans", content=content, headers={"Content-Type": "application/json"}
    )
    assert "8 MiB" in problem(answer, 413)["detail"]


def test_web_sockets_are_turned_away(site: Site):
    answer = site.http.get(
        "/api/models",
        headers={
            "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        },
    )  # fmt: skip
    assert answer.status_code in (200, 403), "either no web sockets at all, or refused"
    assert "sec-websocket-accept" not in answer.headers


def test_a_server_on_all_addresses_takes_ip_addresses_but_no_names(tmp_path: Path):
    with running(tmp_path / "data", host="0.0.0.0") as site:
        assert site.http.get("/healthz", headers={"Host": "192.168.1.7:80"}).status_code == 200
        problem(site.http.get("/healthz", headers={"Host": "rebound.example"}), 421)
