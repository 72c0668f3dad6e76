"""An upload that makes its reader send messages without end, or one without measure."""

from __future__ import annotations

import pytest

from app.domain.errors import ChildFlooded
from tests.support.walled import Walled
from worker.sandbox.walls import Limits

LIMITS = Limits(seconds=60, message_bytes=1 << 20, total_message_bytes=4 << 20)


@pytest.mark.parametrize("how", ["messages", "one message"])
def test_a_flood_ends_it(walled: Walled, how: str) -> None:
    error = walled.error("talker", {"how": how}, limits=LIMITS)
    assert type(error) is ChildFlooded
    assert error.code == "flood"
    assert "MiB" in error.message
    assert sum(len(body["text"]) for _, body in walled.told) < LIMITS.total_message_bytes
