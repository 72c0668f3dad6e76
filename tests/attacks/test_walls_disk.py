"""An upload that fills the disk."""

from __future__ import annotations

import shutil

import pytest

from app.domain.errors import ChildDiskFull
from tests.support.walled import Walled
from worker.sandbox.walls import Limits

CAP = 20 << 20


@pytest.mark.parametrize("how", ["one", "many", "deep", "unlinked", "mapped", "nameless"])
def test_what_it_may_write_ends(walled: Walled, how: str) -> None:
    before = shutil.disk_usage(walled.arenas).used
    error = walled.error("filler", {"how": how}, limits=Limits(seconds=60, disk_bytes=CAP))
    assert type(error) is ChildDiskFull
    assert error.code == "disk-full"
    assert "20 MiB" in error.message
    # Other programs write too; what this child was about to write is a gigabyte.
    assert shutil.disk_usage(walled.arenas).used - before < 500 << 20
