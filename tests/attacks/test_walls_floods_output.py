"""An upload that makes its reader print without end, or print what a terminal obeys."""

from __future__ import annotations

import logging

import pytest

from app.domain.errors import ChildFlooded
from tests.support.walled import Walled
from worker.sandbox.walls import Limits


@pytest.mark.parametrize("how", ["stdout", "stderr", "descriptor"])
def test_a_flood_ends_it(walled: Walled, how: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    error = walled.error("talker", {"how": how}, limits=Limits(seconds=60, output_bytes=1 << 20))
    assert type(error) is ChildFlooded
    assert error.code == "flood"
    assert "printed more than 1 MiB" in error.message
    assert len(caplog.text) < 100_000
    assert "\x1b" not in caplog.text
    assert "\0" not in caplog.text


def test_what_a_terminal_obeys_is_not_in_the_log(
    walled: Walled, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    walled.value("talker", {"how": "quietly"})
    for character in "\x1b\x07\x9b\u202e":
        assert character not in caplog.text
