"""Run one recipe in a child behind walls, and hear what it says."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from app.domain.errors import ChildFailed, InvalidInput
from worker.sandbox import wire
from worker.sandbox.folders import Folder, make_arena, make_folder, take_file
from worker.sandbox.isolation import Isolation, find_isolation
from worker.sandbox.keeper import Keeper, ZygoteGone
from worker.sandbox.limits import Limits
from worker.sandbox.memory import default_memory
from worker.sandbox.running import OnMessage, Running

__all__ = ["Folder", "Limits", "Result", "Walls", "take_file"]

RECIPES = "worker.inside"
MAX_FILES = 100
CLOSE_SECONDS = 5.0


@dataclass
class Result:
    """What a recipe returned, and the folder with what it made, until it is left or discarded."""

    value: dict[str, Any]
    folder: Folder

    def discard(self) -> None:
        self.folder.discard()

    def __enter__(self) -> Result:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()


class Walls:
    """One per worker process. A zygote with torch loaded starts at once, in the background.

    `folder` holds the children's folders; `threads` is how many each may compute with; `recipes` is
    the package that recipes are looked for in.
    """

    def __init__(
        self,
        folder: Path,
        *,
        threads: int | None = None,
        isolation: Isolation | None = None,
        recipes: str = RECIPES,
    ) -> None:
        self.isolation = isolation or find_isolation()
        self._threads = threads
        self._recipes = recipes
        self._arena = make_arena(folder)
        self._lock = threading.Lock()
        self._closed = False
        self._keeper = self._start()

    def _start(self) -> Keeper:
        return Keeper(self.isolation, self._recipes, self._arena)

    def run(
        self,
        recipe: str,
        arguments: Mapping[str, Any],
        files: Mapping[str, Path],
        *,
        on_message: OnMessage,
        should_stop: Callable[[], bool] = lambda: False,
        limits: Limits | None = None,
    ) -> Result:
        """Run `recipe` on `arguments` (JSON) and `files`, one job at a time.

        `on_message(kind, body, folder)` is called in this thread, in order, while the child runs.

        Raises Stopped, what the recipe raised (same class, message and hint), whatever `on_message`
        or `should_stop` raise, ChildFailed (and its subclasses), StorageFull, OSError for a file
        that can't be opened. In every case the child is gone when this returns.
        """
        if len(files) > MAX_FILES:
            raise InvalidInput(f"A job takes {MAX_FILES} files at most.")
        limits = limits or Limits()
        with self._lock:
            for last in (False, True):
                keeper = self._warm(should_stop)
                running = Running(keeper, make_folder(self._arena), limits, on_message, should_stop)
                try:
                    value = self._run(running, recipe, arguments, files)
                except ZygoteGone:
                    keeper.end()
                    running.folder.discard()
                    if last or running.told:
                        gone = ChildFailed(
                            "The process that starts computations was ended.",
                            "Retry the job; a new one is started for it.",
                        )
                        gone.signal = signal.SIGKILL  # which the child dies of, with its parent
                        raise gone from None
                    continue
                except BaseException:
                    running.folder.discard()
                    raise
                return Result(value, running.folder)
        raise AssertionError

    def _run(
        self,
        running: Running,
        recipe: str,
        arguments: Mapping[str, Any],
        files: Mapping[str, Path],
    ) -> dict[str, Any]:
        limits = running.limits
        opened: list[int] = []
        try:
            with written(arguments, self._arena) as said:
                for path in files.values():
                    opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                request = {
                    "recipe": recipe,
                    "files": list(files),
                    "folder": str(running.folder.path),
                    "threads": self._threads,
                    "memory_bytes": limits.memory_bytes or default_memory(),
                    "disk_bytes": limits.disk_bytes,
                    "landlock_abi": self.isolation.landlock_abi,
                    "seccomp": self.isolation.seccomp,
                }
                running.start(request, [said.fileno()], opened)
        except BaseException:
            running.end()
            raise
        finally:
            for descriptor in opened:
                os.close(descriptor)
        return running.wait()

    def _warm(self, should_stop: Callable[[], bool]) -> Keeper:
        """A zygote that is ready. One that died since the last job is started again."""
        for last in (False, True):
            if self._closed:
                raise ChildFailed("These walls are closed.")
            if not self._keeper.usable:
                self._keeper.end()
                self._keeper.release()
                self._keeper = self._start()
            try:
                self._keeper.wait_until_warm(should_stop)
                self._keeper.hear()
                return self._keeper
            except ZygoteGone:
                self._keeper.end()
                if last:
                    raise ChildFailed(
                        "The process that runs computations can't be started.",
                        "prunescope doctor says what is missing; the worker's log has the details.",
                    ) from None
        raise AssertionError

    def twin(self) -> Walls:
        """More walls of the same kind for a child beside this one's, with their own zygote."""
        return Walls(
            self._arena.parent,
            threads=self._threads,
            isolation=self.isolation,
            recipes=self._recipes,
        )

    def warm_up(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Wait until the zygote is ready. Raises Stopped or ChildFailed."""
        with self._lock:
            self._warm(should_stop)

    @property
    def zygote_pid(self) -> int | None:
        """The process that was started for this; behind bubblewrap, its outermost one."""
        return self._keeper.process.pid if self._keeper.process is not None else None

    def close(self) -> None:
        """End the zygote and remove what is left. A job that another thread runs fails."""
        self._closed = True
        self._keeper.end()
        if self._lock.acquire(timeout=CLOSE_SECONDS):
            self._keeper.release()
            self._lock.release()
        Folder(self._arena).discard()


def written(arguments: Mapping[str, Any], arena: Path) -> IO[bytes]:
    """The arguments in a file without a name, at its beginning."""
    file = tempfile.TemporaryFile(dir=arena)  # noqa: SIM115
    file.write(wire.encode(dict(arguments))[wire.HEADER :])
    file.flush()
    file.seek(0)
    return file
