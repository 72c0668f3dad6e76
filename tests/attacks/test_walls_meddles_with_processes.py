"""A recipe taken over by an upload reaches for its parent, the worker, or anybody else."""

from __future__ import annotations

import os

import psutil
import pytest

from app.domain.errors import ChildFailed
from tests.support.walled import Walled


@pytest.mark.parametrize("call", ["ptrace", "process_vm_readv", "mount", "bpf", "unshare"])
def test_a_call_that_only_an_attack_makes_ends_it(walled: Walled, call: str) -> None:
    if not walled.calls_are_walled or os.uname().machine != "x86_64":
        pytest.skip("no system call filter on this machine, or other numbers")
    error = walled.error("meddler", {"call": call})
    assert type(error) is ChildFailed
    assert error.code == "crashed"
    assert "tried something that is not allowed" in error.message
    assert "hostile" in error.hint


def test_other_processes_can_not_be_ended_stopped_or_slowed(walled: Walled) -> None:
    zygote = walled.walls.zygote_pid
    assert zygote is not None
    me = psutil.Process()
    before = (me.nice(), me.rlimit(psutil.RLIMIT_NOFILE))
    value = walled.value("meddler", {"victims": [os.getpid(), zygote]})
    if not walled.calls_are_walled:
        pytest.skip("no system call filter on this machine")
    done = set(value["done"])
    if not walled.files_are_walled:
        done -= {"memory", "score"}  # Files of /proc, which this level doesn't wall off.
    elif walled.level == "bubblewrap":
        done -= {"score"}
    assert done == set()
    assert (me.nice(), me.rlimit(psutil.RLIMIT_NOFILE)) == before
    assert psutil.Process(zygote).status() != psutil.STATUS_STOPPED
