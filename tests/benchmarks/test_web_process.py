"""The web process: how soon it answers, and how much memory it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

pytestmark = pytest.mark.benchmark

TOKEN = "benchmark-token"
MEBIBYTE = 1 << 20


@contextmanager
def web(tmp_path: Path) -> Iterator[tuple[httpx.Client, psutil.Process, float]]:
    """A web server without workers; a signed-in client, its process, seconds to its answer."""
    environment = {key: value for key, value in os.environ.items() if "PRUNESCOPE" not in key}
    environment |= {"PRUNESCOPE_DATA_DIR": str(tmp_path / "data"), "PRUNESCOPE_TOKEN": TOKEN}
    log = tmp_path / "log"
    started = time.perf_counter()
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--factory", "app.web.asgi:create_app_from_env",
             "--port", "0"],
            env=environment, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        while "Uvicorn running on " not in log.read_text():
            assert child.poll() is None, log.read_text()
            time.sleep(0.005)
        url = log.read_text().partition("Uvicorn running on ")[2].split()[0]
        headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "text/html"}
        with httpx.Client(base_url=url, headers=headers, timeout=600) as http:
            assert http.get("/").status_code == 200
            taken = time.perf_counter() - started
            yield http, psutil.Process(child.pid), taken
    finally:
        child.terminate()
        child.wait(20)


def test_the_first_page_is_there_within_two_seconds(tmp_path: Path):
    times = []
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with web(folder) as (_, process, taken):
            times.append(taken)
            loaded = {Path(m.path).name for m in process.memory_maps()}
            assert not any("torch" in name for name in loaded)
    print(f"\nfirst page after {min(times):.2f} s (of {[round(t, 2) for t in times]})")
    assert min(times) < 6, "2 s is the aim; a busy machine is given more"


def test_memory_of_the_process_and_of_a_gigabyte_upload(tmp_path: Path):
    chunk = os.urandom(MEBIBYTE)

    def body(mebibytes: int) -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.pt2"\r\n\r\n'
        for _ in range(mebibytes):
            yield chunk
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    with web(tmp_path) as (http, process, _):
        for path in ("/", "/jobs", "/docs", "/openapi.json", "/static/plotly.min.js") * 5:
            assert http.get(path).status_code == 200
        assert http.post("/api/models", content=body(8), headers=headers).status_code == 202
        resting = process.memory_info().rss
        peak = [resting]
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.01):
                peak.append(process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        started = time.perf_counter()
        answer = http.post("/api/models", content=body(1024), headers=headers)
        seconds = time.perf_counter() - started
        done.set()
        watcher.join()
        assert answer.status_code == 202
        assert answer.json()["bytes"] == 1 << 30
    added = max(peak) - resting
    print(
        f"\nresting {resting / MEBIBYTE:.0f} MiB; 1 GiB uploaded in {seconds:.1f} s adds "
        f"{added / MEBIBYTE:.1f} MiB"
    )
    assert resting < 150 * MEBIBYTE
    assert added < 50 * MEBIBYTE
