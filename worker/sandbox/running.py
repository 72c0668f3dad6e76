"""A job while it runs: hear messages, drain output, watch time, disk and the wish to stop."""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.domain.errors import ChildFailed, PrunescopeError, Stopped
from worker.sandbox import ending, wire
from worker.sandbox.folders import Folder, disk_use, hidden_disk_use
from worker.sandbox.keeper import Keeper
from worker.sandbox.limits import Limits

log = logging.getLogger("prunescope.walls")

OnMessage = Callable[[str, dict[str, Any], Path], None]
POLL_SECONDS = 0.05
DISK_POLL_SECONDS = 0.25
READ_BYTES = 1 << 18
TAIL_BYTES = 16 << 10
MAX_KIND = 100


class Running:
    """One child from its start to its end. `told`: whether anything it said was passed on."""

    def __init__(
        self,
        keeper: Keeper,
        folder: Folder,
        limits: Limits,
        on_message: OnMessage,
        should_stop: Callable[[], bool],
    ) -> None:
        self.keeper, self.folder, self.limits = keeper, folder, limits
        self.on_message, self.should_stop = on_message, should_stop
        self.told = False
        self._reader = wire.Reader(limits.message_bytes, limits.total_message_bytes)
        self._answer: dict[str, Any] | None = None
        self._output = 0
        self._tail = bytearray()
        self._status: int | None = None
        self._asked = False
        self._pipes: dict[str, int] = {}

    def start(self, request: dict[str, Any], before: list[int], files: list[int]) -> None:
        """Raises ZygoteGone."""
        theirs: list[int] = []
        try:
            for name in ("messages", "output"):
                ours, end = os.pipe()
                self._pipes[name] = ours
                theirs.append(end)
                os.set_blocking(ours, False)
            self._asked = True
            self.keeper.ask({"job": request}, [*before, *theirs, *files])
        finally:
            for end in theirs:
                os.close(end)

    def wait(self) -> dict[str, Any]:
        """What the recipe returned. Raises as `Walls.run` says; the child is gone in any case."""
        try:
            self._listen()
            return self._judge()
        except BaseException as error:
            self._log_tail(error)
            raise
        finally:
            self.end()

    def end(self) -> None:
        if self._asked and self._status is None:
            self._status = -1
            self.keeper.kill_child()
        self.folder.settled = True
        for pipe in self._pipes.values():
            os.close(pipe)
        self._pipes.clear()

    def _listen(self) -> None:
        started = time.monotonic()
        look_at_disk = started + DISK_POLL_SECONDS
        control = self.keeper.descriptor()
        names = {pipe: name for name, pipe in self._pipes.items()}
        open_pipes = set(names)
        while self._status is None:
            ready, _, _ = select.select([control, *open_pipes], [], [], POLL_SECONDS)
            for pipe in open_pipes.intersection(ready):
                if not self._take(names[pipe], pipe):
                    open_pipes.discard(pipe)
            if control in ready:
                for message in self.keeper.hear():
                    if "ended" in message:
                        self._status = int(message["ended"])
            if self.should_stop():
                raise Stopped("The computation was stopped.")
            moment = time.monotonic()
            if self.limits.seconds is not None and moment - started > self.limits.seconds:
                raise ending.took_too_long(self.limits.seconds)
            if self.limits.disk_bytes is not None and moment >= look_at_disk:
                look_at_disk = moment + DISK_POLL_SECONDS
                self._weigh()
        for pipe in open_pipes:
            while self._take(names[pipe], pipe):
                pass

    def _weigh(self) -> None:
        limit = self.limits.disk_bytes
        if limit is None:
            return
        used = disk_use(self.folder.path)
        child = self.keeper.child_pid() if self._status is None else None
        if child is not None:
            used += hidden_disk_use(self.folder.path, child)
        if used > limit:
            raise ending.wrote_too_much(limit)

    def _take(self, name: str, pipe: int) -> bool:
        """Read what is there. False when there is nothing (any more)."""
        try:
            data = os.read(pipe, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            return False
        if name == "messages":
            for message in self._reader.feed(data):
                self._pass_on(message)
        else:
            self._output += len(data)
            self._tail += data
            del self._tail[:-TAIL_BYTES]
            if self._output > self.limits.output_bytes:
                raise ending.flooded(self.limits.output_bytes)
        return True

    def _pass_on(self, message: dict[str, Any]) -> None:
        if self._answer is not None:
            raise ending.unreadable("it goes on after its end")
        if "tell" not in message:
            self._answer = message
            return
        kind, body = message["tell"], message.get("body")
        if not isinstance(kind, str) or len(kind) > MAX_KIND or not isinstance(body, dict):
            raise ending.unreadable("a message has no kind or no body")
        self.told = True
        self.on_message(kind, body, self.folder.path)

    def _judge(self) -> dict[str, Any]:
        assert self._status is not None
        self._weigh()
        where = {"disk_bytes": self.limits.disk_bytes, "folder": str(self.folder.path)}
        answer = self._answer
        if self._status != 0 or answer is None:
            if self._status == 0 and self._reader.half_read:
                raise ending.unreadable("it breaks off in the middle")
            raise ending.ended(self._status, bytes(self._tail), **where)
        if self._reader.half_read:
            raise ending.unreadable("it goes on after its end")
        result, error, failed = (answer.get(key) for key in ("result", "error", "failed"))
        if isinstance(result, dict):
            return result
        if isinstance(error, dict):
            raise ending.raised_inside(error)
        if isinstance(failed, dict):
            raise ending.failed_inside(failed, **where)
        raise ending.unreadable("it is neither a result nor an error")

    def _log_tail(self, error: BaseException) -> None:
        """The log has what the child printed whenever that may explain how it ended."""
        explained = isinstance(error, PrunescopeError) and not isinstance(error, ChildFailed)
        if self._tail and not explained:
            log.warning("the child's output ended with\n%s", ending.for_log(bytes(self._tail)))
