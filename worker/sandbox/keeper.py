"""The worker's side of a zygote: start it, wait until it is warm, talk to it, end it."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.domain.errors import ChildFailed, Stopped
from worker.sandbox import bubblewrap, wire
from worker.sandbox.isolation import Isolation
from worker.sandbox.reach import extra_paths

WARM_SECONDS = 120.0
KILL_SECONDS = 5.0
CONTROL_BYTES = 1 << 16
MAX_DESCENT = 4


class ZygoteGone(Exception):
    """The zygote ended, or doesn't answer any more."""


class Keeper:
    """One zygote process, from its start in the background to its end."""

    def __init__(self, isolation: Isolation, recipes: str, arena: Path) -> None:
        self.isolation, self.recipes, self.arena = isolation, recipes, arena
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.process: subprocess.Popen[bytes] | None = None
        self._reader = wire.Reader(CONTROL_BYTES, sys.maxsize)
        self._heard: list[dict[str, Any]] = []
        self._ended = False
        self._lock = threading.Lock()
        self.warm = False
        # A process is told of its parent's death when the *thread* that started it ends, so the
        # thread that starts a zygote stays as long as it.
        self._thread = threading.Thread(target=self._keep, args=(theirs,), daemon=True)
        self._thread.start()

    def _keep(self, theirs: socket.socket) -> None:
        try:
            process = subprocess.Popen(
                self._command(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=self.arena,
                env=environment(),
                start_new_session=True,
            )
        except OSError:
            return
        finally:
            theirs.close()
        with self._lock:
            self.process = process
            if self._ended:
                process.kill()
        process.wait()

    def _command(self, control: int) -> list[str]:
        words = [sys.executable, "-P", "-s", "-m", "worker.sandbox.zygote", self.recipes]
        words += [str(control), self.isolation.level]
        program = bubblewrap.find_bubblewrap()
        if self.isolation.level == "bubblewrap" and program is not None:
            return [*bubblewrap.command(program, self.arena, environment()), *words]
        return words

    def descriptor(self) -> int:
        return self.control.fileno()

    def wait_until_warm(self, should_stop: Callable[[], bool]) -> None:
        """Raises Stopped, or ZygoteGone when it ended, ChildFailed when it takes far too long."""
        deadline = time.monotonic() + WARM_SECONDS
        while not self.warm:
            if should_stop():
                raise Stopped("The computation was stopped.")
            if time.monotonic() > deadline:
                self.end()
                raise ChildFailed(
                    "The process for computations did not start in time.",
                    "The machine may be overloaded; retry the job.",
                )
            self.hear(0.05)

    def hear(self, timeout: float = 0.0) -> list[dict[str, Any]]:
        """What the zygote said since. Raises ZygoteGone."""
        if not select.select([self.control], [], [], timeout)[0]:
            return []
        try:
            data = self.control.recv(CONTROL_BYTES)
        except OSError as error:
            raise ZygoteGone from error
        if not data:
            raise ZygoteGone
        said = list(self._reader.feed(data))
        self.warm = self.warm or any("ready" in message for message in said)
        return said

    def ask(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Raises ZygoteGone."""
        data = wire.encode(message)
        try:
            sent = socket.send_fds(self.control, [data], list(descriptors)) if descriptors else 0
            self.control.sendall(data[sent:])
        except OSError as error:
            raise ZygoteGone from error

    def child_pid(self) -> int | None:
        """The running child by the number it has for us: the last of the line of descent."""
        pid = self.process.pid if self.process is not None else None
        for _ in range(MAX_DESCENT):
            try:
                below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            except OSError:
                return None
            if not below:
                break
            pid = int(below[-1])
        return pid

    def kill_child(self) -> None:
        """End the running child; the whole zygote when that isn't heard of in time."""
        try:
            self.ask({"kill": True})
            deadline = time.monotonic() + KILL_SECONDS
            while (left := deadline - time.monotonic()) > 0:
                if any("ended" in message for message in self.hear(left)):
                    return
        except ZygoteGone:
            pass
        self.end()

    @property
    def usable(self) -> bool:
        return not self._ended and self._thread.is_alive()

    def end(self) -> None:
        """End the process. Whoever waits for it, in another thread too, hears ZygoteGone."""
        with self._lock:
            self._ended = True
            if self.process is not None and self.process.poll() is None:
                with suppress(OSError):
                    self.process.kill()
        with suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)
        self._thread.join(KILL_SECONDS)

    def release(self) -> None:
        """After `end`, when nobody waits any more."""
        self.control.close()


def environment() -> dict[str, str]:
    """All that a child may know of the environment: no token, no database, nobody's secrets."""
    kept = {"LANG", "LC_ALL", "LC_CTYPE", "TZ", "OMP_NUM_THREADS", "LD_LIBRARY_PATH"}
    known = {name: value for name, value in os.environ.items() if name in kept}
    return known | {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": ":".join(map(str, extra_paths())),
        "PYTHONDONTWRITEBYTECODE": "1",
        # The pools of BLAS libraries would be threads before the fork.
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": known.get("OMP_NUM_THREADS", "1"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
