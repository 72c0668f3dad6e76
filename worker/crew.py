"""How many children a worker computes one job with, and the walls for those beside the first."""

from __future__ import annotations

import os
import socket
import threading

from app.settings import Settings
from app.store import workers
from app.store.store import Store
from worker.sandbox.walls import Walls

MOST = 8
"""More children than this share too little work for what each costs in memory."""


def cores() -> int:
    """Those that this process may use, and by OMP_NUM_THREADS should."""
    try:
        found = len(os.sched_getaffinity(0))
    except AttributeError:
        found = os.cpu_count() or 1
    said = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(found, int(said))) if said.isdigit() else found


class Crew:
    """The walls of one worker: its own, and twins of them, made when they are first wanted."""

    def __init__(self, store: Store, settings: Settings, first: Walls) -> None:
        self._store, self._settings = store, settings
        self._walls = [first]
        self._lock = threading.Lock()

    def share(self) -> int:
        """The cores that this worker should use, as others on this machine want some too."""
        with self._store.read() as session:
            here = socket.gethostname()
            live = sum(worker.host == here for worker in workers.live(session))
        # A worker that `serve` started was given its share already, in OMP_NUM_THREADS.
        return max(1, min(cores(), (os.cpu_count() or 1) // max(1, live)))

    def processes(self) -> int:
        """How many children to compute with: what was set, or this worker's share of the cores."""
        return self._settings.processes or min(MOST, self.share())

    def threads(self, processes: int) -> int:
        """How many threads each of so many children may compute with."""
        return max(1, self.share() // processes)

    def walls(self, count: int) -> list[Walls]:
        """So many walls, this worker's own first."""
        with self._lock:
            while len(self._walls) < count:
                self._walls.append(self._walls[0].twin())
            return self._walls[:count]

    def warm_up(self) -> None:
        """Begin to start what an analysis will want, in the background."""
        self.walls(self.processes())

    def close(self) -> None:
        """Close the twins; whoever gave the first closes that."""
        with self._lock:
            first, *twins = self._walls
            self._walls = [first]
        for each in twins:
            if each is not first:
                each.close()
