"""The event stream of a page goes on where it broke off.

`static/js/live.js` runs in a real Chromium against a server that hangs up after two events, answers
503 for a while and then sends again from where it is asked to.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page

from app.paths import static_dir

pytestmark = pytest.mark.browser

EVENTS = 7
FRAME = """<!doctype html><title>frame</title>
<div id="lost" hidden><span id="lost-text"></span><button id="lost-now">Try now</button></div>
<script type="application/json" id="state">{}</script>"""


class _Server(ThreadingHTTPServer):
    """Remembers the `after` of every connection; hangs up, refuses, then serves all."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(static_dir())))
        self.asked: list[int] = []
        self.replay = False


class _Handler(SimpleHTTPRequestHandler):
    server: _Server
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".js": "text/javascript"}  # noqa: RUF012

    def log_message(self, format: str, *args: Any) -> None:
        del format, args

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path == "/frame":
            self._send(200, "text/html", FRAME.encode())
        elif address.path == "/events":
            self._events(int(parse_qs(address.query)["after"][0]))
        else:
            super().do_GET()

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _events(self, after: int) -> None:
        self.server.asked.append(after)
        turn = len(self.server.asked)
        if turn == 2:
            self._send(503, "text/plain", b"starting")
            return
        first = 1 if self.server.replay else after + 1
        last = min(after + 2, EVENTS) if turn == 1 else EVENTS
        lines = [
            f"event: points\nid: {number}\ndata: {json.dumps({'number': number})}\n\n"
            for number in range(first, last + 1)
        ]
        self._send(200, "text/event-stream", "".join(lines).encode())


@pytest.fixture
def opened(browser: Browser) -> Iterator[tuple[Page, _Server]]:
    server = _Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tab = browser.new_page()
    try:
        tab.goto(f"http://127.0.0.1:{server.server_address[1]}/frame")
        yield tab, server
    finally:
        tab.close()
        server.shutdown()
        server.server_close()


def start(page: Page, after: int) -> None:
    page.evaluate(
        """async (after) => {
          const { follow } = await import('/js/live.js');
          window.seen = [];
          window.lost = [];
          const bar = document.getElementById('lost');
          new MutationObserver(() => window.lost.push(!bar.hidden))
            .observe(bar, { attributes: true, attributeFilter: ['hidden'] });
          window.stream = follow('/events', {
            after, handlers: { points: (data, id) => window.seen.push([id, data.number]) },
          });
        }""",
        after,
    )


def test_it_resumes_after_the_last_event_it_saw(opened: tuple[Page, _Server]) -> None:
    page, server = opened
    start(page, 1)
    page.wait_for_function(f"window.seen.length >= {EVENTS - 1}", timeout=15_000)
    page.evaluate("window.stream.close()")
    assert page.evaluate("window.seen") == [[n, n] for n in range(2, EVENTS + 1)]
    assert server.asked[:3] == [1, 3, 3]


def test_events_that_come_twice_are_handled_once(opened: tuple[Page, _Server]) -> None:
    page, server = opened
    server.replay = True
    start(page, 0)
    page.wait_for_function(f"window.seen.length >= {EVENTS}", timeout=15_000)
    page.wait_for_timeout(1500)
    page.evaluate("window.stream.close()")
    assert page.evaluate("window.seen") == [[n, n] for n in range(1, EVENTS + 1)]


def test_a_lost_connection_is_said_and_taken_back(opened: tuple[Page, _Server]) -> None:
    page, server = opened
    start(page, 0)
    page.wait_for_selector("#lost:not([hidden])", state="attached", timeout=5_000)
    assert "Connection lost" in page.inner_text("#lost-text")
    page.click("#lost-now")
    page.wait_for_function(f"window.seen.length >= {EVENTS}", timeout=15_000)
    assert page.evaluate("window.lost.slice(0, 2)") == [True, False]
    page.evaluate("window.stream.close()")
    assert page.evaluate("document.getElementById('lost').hidden")
    connections = len(server.asked)
    page.wait_for_timeout(2500)
    assert len(server.asked) == connections, "a closed stream connects no more"


@pytest.mark.parametrize(
    ("status", "body", "message", "hint"),
    [
        (
            422,
            json.dumps({"title": "No", "detail": "Wrong.", "hint": "Do so."}),
            "Wrong.",
            "Do so.",
        ),
        (409, json.dumps({"title": "Conflict"}), "Conflict", ""),
        (502, "<html>bad gateway</html>", "The server answered 502 without a reason.", ""),
    ],
)
def test_every_failure_has_a_sentence(
    opened: tuple[Page, _Server], status: int, body: str, message: str, hint: str
) -> None:
    page, _ = opened
    found = page.evaluate(
        """async ([status, body]) => {
          const { problemFrom } = await import('/js/api.js');
          const error = problemFrom(status, body);
          return [error.status, error.message, error.hint];
        }""",
        [status, body],
    )
    assert found[0] == status
    assert found[1].startswith(message)
    assert found[2] == hint
