"""Real walls at every level that this machine has, for tests; each level's zygote starts once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.domain.errors import PrunescopeError
from worker.sandbox.isolation import LEVELS, find_isolation, missing
from worker.sandbox.walls import Limits, Result, Walls

HOSTILE = "tests.attacks.hostile"
SECONDS = 30.0


@dataclass
class Walled:
    """Walls with what tests ask of them."""

    walls: Walls
    arenas: Path
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    processes_at_rest: int = 0

    @property
    def level(self) -> str:
        return self.walls.isolation.level

    @property
    def files_are_walled(self) -> bool:
        """Whether this level promises that other files can't be reached."""
        return self.level == "bubblewrap" or self.walls.isolation.landlock_abi > 0

    @property
    def calls_are_walled(self) -> bool:
        return self.walls.isolation.seccomp

    def processes(self) -> int:
        """How many live behind these walls, the zygote and bubblewrap's own among them."""
        pid = self.walls.zygote_pid
        assert pid is not None
        return 1 + len(psutil.Process(pid).children(recursive=True))

    def run(
        self,
        recipe: str,
        arguments: dict[str, Any] | None = None,
        files: dict[str, Path] | None = None,
        **others: Any,
    ) -> Result:
        self.told = []
        others.setdefault("limits", Limits(seconds=SECONDS))
        others.setdefault("on_message", lambda kind, body, folder: self.told.append((kind, body)))
        return self.walls.run(recipe, arguments or {}, files or {}, **others)

    def value(self, recipe: str, *given: Any, **others: Any) -> dict[str, Any]:
        with self.run(recipe, *given, **others) as result:
            return result.value

    def error(self, recipe: str, *given: Any, **others: Any) -> PrunescopeError:
        """The error that the recipe's run ends with; it has to read like one of ours."""
        with pytest.raises(PrunescopeError) as caught:
            self.run(recipe, *given, **others)
        error = caught.value
        assert error.message.endswith(".")
        assert error.message[0].isupper()
        assert "Traceback" not in error.message
        assert str(self.arenas) not in error.message
        return error

    def assert_clean(self) -> None:
        """The next job starts as if nothing had happened, and nothing is left of the last one."""
        (arena,) = self.arenas.iterdir()
        assert list(arena.iterdir()) == []
        self.walls.warm_up()
        assert self.processes() == self.processes_at_rest, "a process was left behind"
        with self.run("echo", {"messages": 2}) as result:
            assert result.value["arguments"] == {"messages": 2}
            assert result.value["found"] == []
        assert self.told == [("number", {"number": 0}), ("number", {"number": 1})]
        assert list(arena.iterdir()) == []


def make_walled(level: str, folder: Path, **others: Any) -> Walled:
    """Skips the test where the level is not to be had."""
    if why := missing(level):
        pytest.skip(f"no {level} here: {why}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    isolation = find_isolation(level)
    walls = Walls(folder, isolation=isolation, **{"threads": 1, "recipes": HOSTILE} | others)
    walled = Walled(walls, folder)
    walled.run("echo").discard()
    walled.processes_at_rest = walled.processes()
    return walled


@pytest.fixture(params=LEVELS, scope="session")
def shared_walls(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Walled]:
    walled = make_walled(request.param, tmp_path_factory.mktemp("arenas"))
    yield walled
    walled.walls.close()
    assert list(walled.arenas.iterdir()) == []


@pytest.fixture
def walled(shared_walls: Walled) -> Iterator[Walled]:
    """Every test that uses it also proves that the next job starts clean, from the same zygote."""
    before = shared_walls.walls.zygote_pid
    yield shared_walls
    shared_walls.assert_clean()
    assert shared_walls.walls.zygote_pid == before, "the zygote was ended"
