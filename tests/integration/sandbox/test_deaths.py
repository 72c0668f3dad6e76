"""Zygotes and workers that die, and what is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.domain.errors import ChildFailed, Stopped
from tests.support.walled import Walled, make_walled
from worker.sandbox import folders
from worker.sandbox.isolation import LEVELS, available_levels, find_isolation, missing
from worker.sandbox.walls import Limits, Walls

pytestmark = pytest.mark.slow


@pytest.fixture(params=LEVELS)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Walled]:
    walled = make_walled(request.param, tmp_path / "arenas")
    yield walled
    walled.walls.close()


def _zygote(walled: Walled) -> int:
    pid = walled.walls.zygote_pid
    assert pid is not None
    return pid


def _wait_until(true: Any, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return False


def test_a_zygote_that_died_between_jobs_is_started_again(fresh: Walled) -> None:
    before = _zygote(fresh)
    os.kill(before, signal.SIGKILL)
    assert fresh.value("echo", {"a": 1})["arguments"] == {"a": 1}
    assert _zygote(fresh) != before


def test_a_job_that_said_nothing_yet_runs_again(fresh: Walled) -> None:
    before = _zygote(fresh)
    asked = [0]

    def kill_once() -> bool:
        asked[0] += 1
        if asked[0] == 2:
            os.kill(before, signal.SIGKILL)
        return False

    with pytest.raises(ChildFailed) as caught:
        fresh.run("liar", {"how": "closed"}, should_stop=kill_once, limits=Limits(seconds=1))
    assert caught.value.code == "took-too-long"
    assert _zygote(fresh) != before


def test_a_job_that_was_heard_fails_and_the_next_one_runs(fresh: Walled) -> None:
    before = _zygote(fresh)
    with pytest.raises(ChildFailed) as caught:
        fresh.run(
            "endless", {"how": "python"}, on_message=lambda *_: os.kill(before, signal.SIGKILL)
        )
    assert caught.value.code == "crashed"
    assert "was ended" in caught.value.message
    fresh.assert_clean()


def test_a_zygote_that_hangs_is_ended_with_its_child(fresh: Walled) -> None:
    """Stopped by a signal it doesn't answer; a stop of the job still takes hold."""
    outer = psutil.Process(_zygote(fresh))
    everyone: list[psutil.Process] = []

    def freeze(*_: object) -> None:
        everyone.extend(outer.children(recursive=True))
        zygote = everyone[-2] if len(everyone) > 1 else outer
        zygote.send_signal(signal.SIGSTOP)

    with pytest.raises(Stopped):
        fresh.run(
            "endless",
            {"how": "python"},
            on_message=freeze,
            should_stop=lambda: bool(everyone),
        )
    assert _wait_until(lambda: not any(_alive(process) for process in [outer, *everyone]))
    fresh.assert_clean()


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


WORKER = """
import sys
from pathlib import Path
from worker.sandbox.isolation import find_isolation
from worker.sandbox.walls import Walls

walls = Walls(
    Path(sys.argv[1]), isolation=find_isolation(sys.argv[2]), recipes="tests.attacks.hostile"
)
walls.run("endless", {"how": "python"}, {}, on_message=lambda *_: print("running", flush=True))
"""


@pytest.mark.parametrize("level", LEVELS)
def test_a_worker_that_is_killed_takes_everything_with_it(level: str, tmp_path: Path) -> None:
    if why := missing(level):
        pytest.skip(f"no {level} here: {why}")
    arenas = tmp_path / "arenas"
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(arenas), level],
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert worker.stdout is not None
    with worker, worker.stdout:
        assert worker.stdout.readline() == b"running\n"
        below = psutil.Process(worker.pid).children(recursive=True)
        assert len(below) >= 2
        worker.kill()
        worker.wait()
    assert _wait_until(lambda: not any(_alive(process) for process in below))
    assert len(list(arenas.iterdir())) == 1
    folders.remove_leftovers(arenas)
    assert list(arenas.iterdir()) == []


def test_leftovers_of_the_living_and_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "somebody").mkdir()
    (tmp_path / "12-notes").mkdir()
    mine = folders.make_arena(tmp_path)
    reused = tmp_path / f"{os.getpid()}-1-abcdef"
    reused.mkdir()
    folders.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"somebody", "12-notes", mine.name}


@pytest.mark.parametrize("level", available_levels())
def test_close_ends_everything(level: str, tmp_path: Path) -> None:
    walled = make_walled(level, tmp_path)
    outer = psutil.Process(_zygote(walled))
    below = [outer, *outer.children(recursive=True)]
    walled.walls.close()
    assert _wait_until(lambda: not any(_alive(process) for process in below))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ChildFailed):
        walled.run("echo")
    walled.walls.close()


def test_a_stop_is_heard_while_the_zygote_is_not_warm_yet(tmp_path: Path) -> None:
    walls = Walls(tmp_path, recipes="tests.attacks.hostile")
    started = time.monotonic()
    try:
        with pytest.raises(Stopped):
            walls.run("echo", {}, {}, on_message=lambda *_: None, should_stop=lambda: True)
        assert time.monotonic() - started < 1
    finally:
        walls.close()


@pytest.mark.parametrize("level", available_levels())
def test_the_zygote_of_the_real_recipes_has_one_thread(level: str, tmp_path: Path) -> None:
    """A fork copies the locks of other threads, held for ever."""
    walls = Walls(tmp_path, isolation=find_isolation(level))
    try:
        walls.warm_up()
        assert walls.zygote_pid is not None
        outer = psutil.Process(walls.zygote_pid)
        everyone = [outer, *outer.children(recursive=True)]
        assert [process.num_threads() for process in everyone] == [1] * len(everyone)
    finally:
        walls.close()
