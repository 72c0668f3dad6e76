"""The real pages with a state written by hand: a server that renders templates and tells events.

For states that a real worker passes through in a blink, and for looking at pages. It answers with
the same content security policy; what the page asks for is kept in `asked`.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from app.paths import static_dir, templates_dir
from app.web.contexts import PageContext
from app.web.headers import SECURITY_HEADERS
from app.web.static import plotly_file
from app.web.templates import Pages

Answer = Callable[[Any], Any]


class _Plain:
    """Addresses of static files without a version."""

    def url(self, path: str) -> str:
        return f"/static/{path}"


@dataclass
class Stage:
    """`pages` and `answers` by path; an answer is a JSON value, or a function of the asked body."""

    url: str = ""
    pages: dict[str, tuple[str, PageContext, dict[str, Any]]] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    streams: list[queue.Queue[str | None]] = field(default_factory=list)
    told: int = 0
    closed: bool = False

    def show(self, path: str, template: str, state: dict[str, Any], *crumbs: str) -> None:
        """Put a page on the stage."""
        labels = [("Models", "/"), *((crumb, "/") for crumb in crumbs)]
        page = PageContext(title="Stage", crumbs=tuple(labels), jobs_running=1)
        self.pages[path] = (template, page, state)

    def tell(self, kind: str, data: Any) -> None:
        """An event to every open stream."""
        self.told += 1
        text = f"event: {kind}\nid: {self.told}\ndata: {json.dumps(data)}\n\n"
        for stream in list(self.streams):
            stream.put(text)

    def posted(self, path: str) -> list[Any]:
        """The bodies that were posted to a path."""
        return [body for method, where, body in self.asked if (method, where) == ("POST", path)]


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".js": "text/javascript"}  # noqa: RUF012

    def __init__(self, *args: Any, stage: Stage, renderer: Pages) -> None:
        self.stage, self.renderer = stage, renderer
        super().__init__(*args, directory=str(static_dir()))

    def log_message(self, format: str, *args: Any) -> None:
        del format, args

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path in self.stage.pages:
            template, page, state = self.stage.pages[path]
            html = self.renderer.text(template, page, state)
            self._send(200, "text/html; charset=utf-8", html.encode())
        elif path == "/static/plotly.min.js":
            self._send(200, "text/javascript", plotly_file().read_bytes())
        elif path.startswith("/static/"):
            self.path = path.removeprefix("/static")
            super().do_GET()
        elif path.endswith("/events"):
            self._stream()
        else:
            self._answer("GET", path, None)

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size) or b"null")
        self._answer("POST", urlsplit(self.path).path, body)

    def _answer(self, method: str, path: str, body: Any) -> None:
        self.stage.asked.append((method, path, body))
        if path not in self.stage.answers:
            problem = {"title": "Not found", "detail": f"Nothing is at {path}.", "status": 404}
            self._send(404, "application/problem+json", json.dumps(problem).encode())
            return
        answer = self.stage.answers[path]
        found = answer(body) if callable(answer) else answer
        self._send(200, "application/json", json.dumps(found).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in SECURITY_HEADERS:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        mine: queue.Queue[str | None] = queue.Queue()
        self.stage.streams.append(mine)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            while not self.stage.closed:
                try:
                    text = mine.get(timeout=0.2)
                except queue.Empty:
                    text = ": still here\n\n"
                if text is not None:
                    self.wfile.write(text.encode())
                    self.wfile.flush()
        except OSError:
            pass  # the page has gone
        finally:
            self.stage.streams.remove(mine)


@contextmanager
def staged() -> Iterator[Stage]:
    stage = Stage()
    renderer = Pages(templates_dir(), _Plain())  # type: ignore[arg-type]
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(_Handler, stage=stage, renderer=renderer)
    )
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stage.url = f"http://127.0.0.1:{server.server_address[1]}"
    stage.answers["/api/jobs"] = {"items": [], "next_cursor": None}
    try:
        yield stage
    finally:
        stage.closed = True
        server.shutdown()
        server.server_close()
