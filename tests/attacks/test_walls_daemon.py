"""A recipe taken over by an upload leaves a process behind that outlives its job."""

from __future__ import annotations

import psutil

from tests.support.walled import Walled
from worker.sandbox import walls as walls_module


def _below(walled: Walled) -> set[int]:
    zygote = walled.walls.zygote_pid
    assert zygote is not None
    return {process.pid for process in psutil.Process(zygote).children(recursive=True)}


def test_nothing_outlives_a_job(walled: Walled) -> None:
    before = _below(walled)
    value = walled.value("daemon")
    if walled.calls_are_walled:
        assert value["done"] == []
    assert _below(walled) == before


def test_without_the_filter_the_zygote_ends_what_was_left(walled: Walled) -> None:
    """The second wall, with the first taken away: real daemons, and they are gone."""
    isolation = walled.walls.isolation
    before = _below(walled)
    loose = walls_module.Isolation(isolation.level, isolation.landlock_abi, False, "")
    walled.walls.isolation = loose
    try:
        value = walled.value("daemon")
    finally:
        walled.walls.isolation = isolation
    assert "fork" in value["done"]
    assert _below(walled) == before
    hostile = [
        process.pid
        for process in psutil.process_iter(["ppid"])
        if process.info["ppid"] == 1 and "worker.sandbox.zygote" in _words(process)
    ]
    assert hostile == []


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
