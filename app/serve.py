"""`prunescope serve`: one web server process, and the worker processes it looks after."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import click
import uvicorn

from app.doctor import require_isolation
from app.domain.errors import Conflict
from app.settings import Settings
from app.store import workers
from app.store.store import Store

log = logging.getLogger("prunescope.serve")

RESTART_DELAY_SECONDS = 0.5
LONGEST_RESTART_DELAY_SECONDS = 30.0
STEADY_SECONDS = 30.0
STOP_SECONDS = 10.0


@dataclass
class Supervisor:
    """Keeps `count` workers alive: a dead one is started again, ever slower while it keeps on."""

    settings: Settings
    store: Store
    count: int
    stopping: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for number in range(self.count):
            thread = threading.Thread(target=self._look_after, args=(number,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(STOP_SECONDS + 5)

    def _look_after(self, number: int) -> None:
        delay = RESTART_DELAY_SECONDS
        while not self.stopping.is_set():
            started = time.monotonic()
            process = self._spawn()
            while process.poll() is None:
                if self.stopping.wait(0.1):
                    self._end(process)
                    return
            lived = time.monotonic() - started
            delay = RESTART_DELAY_SECONDS if lived > STEADY_SECONDS else delay * 2
            log.warning(
                "worker %s died (%s) after %.0f s and is started again",
                number + 1,
                ending(process.returncode),
                lived,
            )
            with suppress(Exception):
                workers.bury(self.store, process.pid)
            self.stopping.wait(min(delay, LONGEST_RESTART_DELAY_SECONDS))

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "worker",
                "run",
                "--parent",
                str(os.getpid()),
                "--siblings",
                str(self.count),
            ],
            env=self.settings.child_environment(),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ending(returncode: int) -> str:
    if returncode < 0:
        try:
            return signal.Signals(-returncode).name
        except ValueError:
            return f"signal {-returncode}"
    return f"exit code {returncode}"


class AnnouncingServer(uvicorn.Server):
    """Prints the sign-in link once the socket is open, so that the link always works."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self.settings = settings

    # uvicorn types its sockets more narrowly than what it does with them.
    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets=sockets)  # type: ignore[arg-type]
        if self.should_exit or not self.servers:
            return
        port = self.servers[0].sockets[0].getsockname()[1]
        click.echo(sign_in_link(self.settings, port))
        sys.stdout.flush()


def sign_in_link(settings: Settings, port: int, following: str = "/") -> str:
    host = settings.host
    if host in ("0.0.0.0", "::", ""):
        host = "127.0.0.1"
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{port}/sign-in?token={settings.token}&next={following}"


def require_address(host: str, port: int) -> None:
    """Raises Conflict unless a server can listen there now."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        raise Conflict(
            f"The server can't listen at {host}, port {port}: {error.strerror}.",
            "Choose another --port (or --host), or end the program that uses it.",
        ) from error


def run_server(settings: Settings, worker_count: int) -> None:
    """Blocks until interrupted.

    Raises InvalidInput for what this installation can't do, Conflict when the port is taken.
    """
    settings.require_supported()
    require_isolation(settings)
    require_address(settings.host, settings.port)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s"
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from app.web.app import create_app

    store = Store.open(settings.database_url)
    store.migrate()
    workers.bury_dead(store)
    supervisor = Supervisor(settings, store, worker_count)
    config = uvicorn.Config(
        create_app(store, settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        timeout_graceful_shutdown=3,
        server_header=False,
        proxy_headers=False,
    )
    server = AnnouncingServer(config, settings)
    # uvicorn raises the signal that ended it again; the workers have to be stopped first.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    supervisor.start()
    try:
        server.run()
    finally:
        supervisor.stop()
        store.dispose()
    if not server.started:
        raise SystemExit(1)
