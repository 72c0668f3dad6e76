"""A worker may run as root, in a container for example; what it starts is not root any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.walled import Walled
from worker.sandbox.walls import Limits


def test_nothing_of_root_is_left(walled: Walled, tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc on this machine")
    (tmp_path / "input").touch()
    limits = Limits(seconds=30, memory_bytes=2 << 30, disk_bytes=5 << 20)
    value = walled.value("status", {}, {"input": tmp_path / "input"}, limits=limits)
    status = value["status"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == ("2" if walled.calls_are_walled else "0")
    assert status["Threads"] == "1"
    assert value["limits"]["CORE"] == [0, 0]
    assert value["limits"]["DATA"] == [2 << 30, 2 << 30]
    assert value["limits"]["FSIZE"] == [5 << 20, 5 << 20]
    assert value["score"] == 1000
    assert value["umask"] == 0o077
    assert value["session"] is True
    # In, out, error, messages, the input: not the zygote's own, and nobody else's.
    assert len(value["descriptors"]) == 5
    assert set(value["regained"]) <= ({"score"} if not walled.files_are_walled else set())
    assert value["torch"] is True
    assert value["modules"] == []
