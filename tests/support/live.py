"""A real installation: `prunescope serve` as a process of its own, with real workers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

from app.client import Client

T = TypeVar("T")


class LiveServer:
    """A started server. `link` is what it printed; `url` and `token` are cut from it."""

    def __init__(self, data_dir: Path, *arguments: str, workers: int = 1) -> None:
        self.data_dir = data_dir
        self.log = data_dir.parent / f"{data_dir.name}.log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PRUNESCOPE_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "app.cli", "serve", "--port", "0"),
                    *("--data-dir", str(data_dir), "--workers", str(workers)),
                    *arguments,
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment | {"OMP_NUM_THREADS": "1"},
            )
        assert self.process.stdout is not None
        self.link = self.process.stdout.readline().strip()
        found = re.fullmatch(r"(http://[^/]+)/sign-in\?token=([^&]+)&next=/", self.link)
        assert found, f"no link but {self.link!r}\n{self.log.read_text()[-3000:]}"
        self.url, self.token = found.groups()

    def client(self) -> Client:
        return Client(self.url, self.token)

    def workers(self) -> list[psutil.Process]:
        """The worker processes that are alive now."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            try:
                if "worker" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
            except psutil.Error:
                continue
        return found

    def kill_workers(self) -> int:
        """SIGKILL to every worker; how many there were."""
        victims = self.workers()
        for victim in victims:
            victim.send_signal(signal.SIGKILL)
        return len(victims)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def live_server(data_dir: Path, *arguments: str, workers: int = 1) -> Iterator[LiveServer]:
    server = LiveServer(data_dir, *arguments, workers=workers)
    try:
        yield server
    finally:
        server.stop()


def until(
    question: Callable[[], T], *, seconds: float = 60.0, every: float = 0.05, what: str = ""
) -> T:
    """Ask until the answer is true; fails with the last answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what or question}: still {answer!r}"
        time.sleep(every)


def finished(client: Client, path: str, *, seconds: float = 120.0) -> dict[str, Any]:
    """Poll a thing with `status` (or a job with `state`) until it has ended."""

    def ended() -> dict[str, Any] | None:
        found = client.call("GET", path)
        state = found.get("status", found.get("state"))
        return None if state in ("queued", "running", "importing") else found

    return until(ended, seconds=seconds, what=path)
