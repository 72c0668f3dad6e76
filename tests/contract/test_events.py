"""Server-sent events: nothing lost, nothing twice, and no stream that holds up the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from app.store import events, queue
from app.store.store import Store
from app.web import sse
from tests.contract.site import (
    TOKEN,
    Site,
    problem,
    start_analysis,
    take_job,
    until,
    write_baseline,
    write_points,
)


@dataclass
class Event:
    id: int
    type: str
    data: Any


class Reader:
    """Reads a stream in a thread, as an EventSource would."""

    def __init__(self, site: Site, path: str, **headers: str) -> None:
        self.events: list[Event] = []
        self.comments = 0
        self.retry = 0
        self.ended = threading.Event()
        self._client = httpx.Client(base_url=site.url, headers=dict(site.http.headers) | headers)
        self._request = self._client.stream("GET", path, timeout=httpx.Timeout(5, read=60))
        self.response = self._request.__enter__()
        assert self.response.status_code == 200
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        fields: dict[str, str] = {}
        try:
            for line in self.response.iter_lines():
                if line.startswith(":"):
                    self.comments += 1
                elif line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                else:
                    self.retry = int(fields.pop("retry", self.retry))
                    if fields:
                        data = json.loads(fields["data"])
                        self.events.append(Event(int(fields["id"]), fields["event"], data))
                    fields = {}
        except (httpx.HTTPError, httpx.StreamError):
            pass
        finally:
            self.ended.set()

    def wait_for(self, count: int) -> list[Event]:
        until(lambda: len(self.events) >= count)
        return self.events

    def close(self) -> None:
        self.response.close()
        self._client.close()


@contextmanager
def reading(site: Site, path: str, **headers: str) -> Iterator[Reader]:
    reader = Reader(site, path, **headers)
    try:
        yield reader
    finally:
        reader.close()


def test_events_come_as_they_happen(site: Site):
    made = start_analysis(site)
    path = f"/api/analyses/{made['id']}/events"
    with reading(site, f"{path}?after={made['event_id']}") as reader:
        assert reader.response.headers["content-type"].startswith("text/event-stream")
        assert reader.response.headers["cache-control"] == "no-store"
        until(lambda: reader.retry == sse.RETRY_MILLISECONDS)
        assert reader.events == []
        lease = take_job(site, "analyse")
        write_baseline(site, lease, "c")
        started = time.monotonic()
        write_points(site, lease, "c", [("head.weight", 500_000, 320)])
        seen = reader.wait_for(3)
        assert time.monotonic() - started < 2
        assert [event.type for event in seen] == ["status", "baseline", "points"]
        assert seen[0].data["status"] == "running"
        (point,) = seen[2].data["points"]
        assert (point["unit"], point["sparsity"]) == ("head.weight", 0.5)
        with queue.fenced(site.store, lease) as session:
            queue.finish(session, lease)
        last = reader.wait_for(4)[-1]
        assert last.type == "status"
        assert last.data["status"] == "done"
        numbers = [event.id for event in reader.events]
        assert numbers == sorted(set(numbers))
        shown = site.http.get(f"/api/analyses/{made['id']}").json()
        assert shown["event_id"] == last.id


def test_a_stream_resumes_after_what_was_seen(site: Site):
    made = start_analysis(site)
    path = f"/api/analyses/{made['id']}/events"
    topic = f"analysis:{made['id']}"
    with site.store.write() as session:
        for number in range(1200):  # more than one read takes
            events.publish(session, topic, "points", {"number": number})
    with reading(site, path) as whole:
        every = whole.wait_for(1201)
    numbers = [event.id for event in every]
    assert numbers == list(range(1, 1202))
    assert [event.data["number"] for event in every[1:]] == list(range(1200))
    with reading(site, path, **{"Last-Event-ID": "700"}) as rest:
        assert [event.id for event in rest.wait_for(501)] == numbers[700:]
    with reading(site, f"{path}?after=1200") as rest:
        assert [event.id for event in rest.wait_for(1)] == [1201]
    with reading(site, f"{path}?after=3", **{"Last-Event-ID": "1199"}) as rest:
        assert [event.id for event in rest.wait_for(2)] == [1200, 1201]
    with reading(site, f"{path}?after=1199", **{"Last-Event-ID": "rubbish"}) as rest:
        assert [event.id for event in rest.wait_for(2)] == [1200, 1201]


def test_many_readers_miss_nothing_while_a_worker_writes(site: Site):
    made = start_analysis(site)
    path = f"/api/analyses/{made['id']}/events"
    topic = f"analysis:{made['id']}"
    readers = [Reader(site, path) for _ in range(60)]
    for number in range(40):
        with site.store.write() as session:
            events.publish(session, topic, "points", {"number": number})
    for reader in readers:
        assert [event.id for event in reader.wait_for(41)] == list(range(1, 42))
    assert site.http.get("/healthz").status_code == 200, "streams hold no thread"
    for reader in readers:
        reader.close()


def test_a_quiet_stream_keeps_alive(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.1)
    made = start_analysis(site)
    path = f"/api/analyses/{made['id']}/events?after={made['event_id']}"
    with reading(site, path) as reader:
        until(lambda: reader.comments >= 3)
        assert reader.events == []


def test_wrong_positions_are_refused(site: Site):
    made = start_analysis(site)
    for after in ("x", "-1", str(2**63)):
        answer = site.http.get(f"/api/analyses/{made['id']}/events", params={"after": after})
        assert problem(answer, 422)["errors"][0]["field"] == "after"
    problem(site.http.get("/api/experiments/1/events"), 404)
    problem(site.anonymous.get(f"/api/analyses/{made['id']}/events"), 401)


def test_the_server_stops_at_once_with_streams_open(tmp_path: Path):
    """uvicorn would wait for open responses without end."""
    data_dir = tmp_path / "data"
    environment = {key: value for key, value in os.environ.items() if "PRUNESCOPE" not in key}
    environment |= {"PRUNESCOPE_DATA_DIR": str(data_dir), "PRUNESCOPE_TOKEN": TOKEN}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--factory", "app.web.asgi:create_app_from_env",
             "--port", "0"],
            env=environment, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        running = "Uvicorn running on "
        until(lambda: running in log.read_text(), 20)
        url = log.read_text().partition(running)[2].split()[0]
        settings = Settings(data_dir=data_dir, token=TOKEN)
        store = Store.open(settings.database_url)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=url, headers=headers, timeout=20) as http:
            site = Site(url, 0, settings, store, None, http, http)
            made = start_analysis(site)
            path = f"/api/analyses/{made['id']}/events"
            readers = [Reader(site, path) for _ in range(3)]
            for reader in readers:
                reader.wait_for(1)
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(10)
            assert time.monotonic() - started < 5
            for reader in readers:
                assert reader.ended.wait(5)
                reader.close()
        store.dispose()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()
