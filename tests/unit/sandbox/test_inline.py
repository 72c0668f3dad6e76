"""The contract of walls, without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import ChildFailed, InvalidFile, LeaseLost, Stopped
from worker.sandbox.inline import run_inline

HOSTILE = "tests.attacks.hostile"


def _inline(recipe: str, arguments: dict[str, Any], files: dict[str, Path], **others: Any) -> Any:
    others.setdefault("on_message", lambda *_: None)
    return run_inline(recipe, arguments, files, recipes=HOSTILE, **others)


def test_it_gives_what_walls_give(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    heard: list[tuple[str, dict[str, Any]]] = []
    with _inline(
        "echo",
        {"messages": 2, "pair": (1, 2)},
        {"file": tmp_path / "file"},
        on_message=lambda kind, body, folder: heard.append((kind, body)),
    ) as result:
        assert result.value["arguments"] == {"messages": 2, "pair": [1, 2]}
        assert result.value["files"] == {"file": "content"}
        assert (result.folder.path / "made").read_bytes() == b"made inside"
    assert heard == [("number", {"number": 0}), ("number", {"number": 1})]
    assert not result.folder.path.exists()


def test_errors_keep_their_class() -> None:
    with pytest.raises(InvalidFile, match="wrong"):
        _inline("refuser", {"class": "InvalidFile", "message": "wrong.", "hint": ""}, {})


def test_other_exceptions_fail_in_words() -> None:
    with pytest.raises(ChildFailed, match="RuntimeError"):
        _inline("crasher", {"how": "exception"}, {})


@pytest.mark.parametrize("kind", [LeaseLost, ZeroDivisionError])
def test_what_a_listener_raises_comes_through(kind: type[Exception]) -> None:
    def refuse(*_: object) -> None:
        raise kind("no more")

    with pytest.raises(kind):
        _inline("echo", {"messages": 1}, {}, on_message=refuse)


def test_a_stop_is_noticed_at_the_next_message() -> None:
    with pytest.raises(Stopped):
        _inline("echo", {"messages": 1}, {}, should_stop=lambda: True)
