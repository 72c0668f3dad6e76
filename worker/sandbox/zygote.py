"""`python -m worker.sandbox.zygote`: a warm process that forks one child a job.

It has loaded torch and the recipes, and has never seen anything uploaded. It must not start
threads: a fork would copy their locks and not them.
"""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any

from worker.sandbox import kernel, reach, wire

MAX_DESCRIPTORS = 250
REQUEST_BYTES = 1 << 16


def prctl(option: int, value: int) -> None:
    """Where there is such a thing; elsewhere the closing of the socket has to do."""
    with suppress(OSError, AttributeError):
        kernel.prctl(option, value)


def preload(package: str) -> None:
    """Load what every job needs. A recipe that can't be loaded says so when it is asked for."""
    with suppress(ImportError):
        importlib.import_module("torch")
    found = importlib.import_module(package)
    for module in pkgutil.iter_modules(found.__path__):
        try:
            importlib.import_module(f"{package}.{module.name}")
        except Exception as error:
            print(f"recipe {module.name} can't be loaded: {error!r}", file=sys.stderr)


class Zygote:
    """Serves one parent over a socket until that closes."""

    def __init__(self, control: socket.socket, package: str, alone: bool) -> None:
        """`alone`: all other processes it can see are the child's doing."""
        self.control = control
        self.package = package
        self.alone = alone
        self.reader = wire.Reader(REQUEST_BYTES, sys.maxsize)
        self.pending: list[dict[str, Any]] = []
        self.woken, waking = os.pipe()
        for end in (self.woken, waking):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waking)

    def serve(self) -> None:
        self.say({"ready": os.getpid()})
        while True:
            request, descriptors = self.hear()
            if "job" in request:
                self.run_job(request["job"], descriptors)

    def say(self, message: dict[str, Any]) -> None:
        self.control.sendall(wire.encode(message))

    def hear(self) -> tuple[dict[str, Any], list[int]]:
        """The next request. Ends this process when the parent has gone."""
        descriptors: list[int] = []
        while not self.pending:
            data, received, _, _ = socket.recv_fds(self.control, REQUEST_BYTES, MAX_DESCRIPTORS)
            descriptors += received
            if not data:
                os._exit(0)
            # A kill that came too late may lie before the next job.
            self.pending += [said for said in self.reader.feed(data) if "job" in said]
        return self.pending.pop(0), descriptors

    def run_job(self, request: dict[str, Any], descriptors: list[int]) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            from worker.sandbox.child import live

            live(request | {"recipes": self.package}, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self.say({"started": pid})
        try:
            status = self.wait_for(pid)
        finally:
            end_survivors(pid, self.alone)
        self.say({"ended": status})

    def wait_for(self, pid: int) -> int:
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return status
            ready, _, _ = select.select([self.control, self.woken], [], [])
            if self.woken in ready:
                with suppress(BlockingIOError):
                    os.read(self.woken, 1024)
            if self.control in ready:
                data = self.control.recv(REQUEST_BYTES)
                if not data:
                    os.kill(pid, signal.SIGKILL)
                    end_survivors(pid, self.alone)
                    os._exit(0)
                for request in self.reader.feed(data):
                    if "kill" in request:
                        os.kill(pid, signal.SIGKILL)


def end_survivors(pid: int, alone: bool) -> None:
    """Whatever a child left running. As their subreaper we inherit its orphans."""
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    if alone:
        with suppress(OSError):
            os.kill(-1, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not ended:
            for orphan in children():
                with suppress(OSError):
                    os.kill(orphan, signal.SIGKILL)
            time.sleep(0.001)


def children() -> list[int]:
    try:
        with open("/proc/thread-self/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def main() -> None:
    package, descriptor, level = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    control = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    preload(package)
    reach.readable()
    # Fewer pages are copied for each child when the collector leaves the shared objects alone.
    gc.collect()
    gc.disable()
    gc.freeze()
    Zygote(control, package, alone=level == "bubblewrap").serve()


if __name__ == "__main__":
    main()
