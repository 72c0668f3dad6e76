"""Death of the whole installation, and of one worker again and again."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import psutil
import pytest

from tests.crash.test_worker_kill import files, table
from tests.support.live import LiveServer, finished, live_server, until

__all__ = ["files"]

pytestmark = pytest.mark.crash


def test_server_and_workers_killed_at_once_go_on_at_once(
    files: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    """The lease is a minute long; nobody waits for it when all processes are seen dead."""
    server = LiveServer(tmp_path / "data", "--lease-seconds", "60")
    with server.client() as client:
        upload = begin_upload(server)
        until(lambda: os.listdir(server.data_dir / "incoming"), what="a staged upload")
        analysis = client.push_files(*files)
        until(lambda: len(table(client, analysis.id)) > 5, what="points")
        seen = table(client, analysis.id)
    victims = [*server.workers(), psutil.Process(server.process.pid)]
    for victim in victims:
        victim.kill()
    psutil.wait_procs(victims, timeout=20)
    upload.close()
    (left,) = (server.data_dir / "incoming").iterdir()
    os.utime(left, (1, 1))
    with live_server(tmp_path / "data", "--lease-seconds", "60") as again, again.client() as client:
        assert not list((again.data_dir / "incoming").iterdir())
        assert set(seen) <= set(table(client, analysis.id)), "a reported point was lost"
        started = time.monotonic()
        until(lambda: len(table(client, analysis.id)) > len(seen), what="new points", seconds=50)
        assert time.monotonic() - started < 50


def begin_upload(server: LiveServer) -> socket.socket:
    """An upload that never ends."""
    port = int(server.url.rsplit(":", 1)[1])
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(
        f"POST /api/models HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {server.token}\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\nContent-Length: 90000000\r\n\r\n"
        '--B\r\nContent-Disposition: form-data; name="file"; filename="a.pt2"\r\n\r\n'.encode()
        + bytes(3_000_000)
    )
    return connection


def test_a_job_that_kills_every_worker_ends_and_the_next_one_runs(
    files: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    with live_server(tmp_path / "data") as server, server.client() as client:
        analysis = client.push_files(*files)
        job = f"/api/jobs/{analysis.get()['job_id']}"

        def murdered() -> dict | None:
            found = client.call("GET", job)
            if found["state"] == "running":
                server.kill_workers()
            return found if found["state"] == "failed" else None

        found = until(murdered, seconds=90, every=0.3)
        assert found["error"]["code"] == "worker-died"
        assert found["attempt"] == 3
        with files[0].open("rb") as file:
            model = client.call("POST", "/api/models", files={"file": ("again.pt2", file)})
        assert finished(client, f"/api/models/{model['id']}")["status"] == "ready"
