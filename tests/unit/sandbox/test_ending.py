"""How a child ended, in words."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from app.domain.errors import (
    ChildDiskFull,
    ChildFailed,
    ChildMalformed,
    ChildOutOfMemory,
    PrunescopeError,
    StorageFull,
)
from worker.sandbox import ending

WHERE = {"disk_bytes": 1 << 20, "folder": "/"}


@pytest.mark.parametrize("number", [*signal.valid_signals(), 64])
def test_every_signal_is_a_sentence(number: int) -> None:
    error = ending.ended(int(number), b"", **WHERE)
    assert isinstance(error, ChildFailed)
    assert error.message.endswith(".")
    assert error.hint


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (signal.SIGSEGV, ChildFailed),
        (signal.SIGSYS, ChildFailed),
        (signal.SIGKILL, ChildOutOfMemory),
        (signal.SIGXFSZ, ChildDiskFull),
    ],
)
def test_signals_have_their_meaning(number: int, kind: type[PrunescopeError]) -> None:
    assert type(ending.ended(number, b"", **WHERE)) is kind


def test_an_abort_for_want_of_memory_is_told_by_its_last_words() -> None:
    said = b"terminate called after throwing an instance of 'std::bad_alloc'\n"
    assert type(ending.ended(signal.SIGABRT, said, **WHERE)) is ChildOutOfMemory
    assert type(ending.ended(signal.SIGABRT, b"", **WHERE)) is ChildFailed


def test_exit_codes_are_said() -> None:
    assert "exit code 3" in ending.ended(3 << 8, b"", **WHERE).message


@pytest.mark.parametrize(
    ("free", "cap", "kind"),
    [
        (1 << 40, 1 << 20, ChildDiskFull),
        (0, 1 << 20, StorageFull),
        (0, None, StorageFull),
        (1 << 40, None, StorageFull),  # A quota: no cap of ours was there to be met.
    ],
)
def test_a_full_disk_is_told_from_a_cap(
    monkeypatch: pytest.MonkeyPatch, free: int, cap: int | None, kind: type[PrunescopeError]
) -> None:
    values = [4096, 4096, 1 << 30, free // 4096, free // 4096, 0, 0, 0, 0, 255]
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(values))
    said = {"reason": "disk"}
    assert type(ending.failed_inside(said, disk_bytes=cap, folder="/")) is kind


def test_a_child_invents_no_errors() -> None:
    for said in ({}, {"class": "SystemExit"}, {"class": "Stopped"}, {"class": ["InvalidFile"]}):
        assert type(ending.raised_inside(said)) is ChildMalformed


def test_words_of_any_type_are_words(tmp_path: Path) -> None:
    said = {"class": "InvalidInput", "message": {"a": 1}, "hint": None, "fields": {"a": [1]}}
    error = ending.raised_inside(said)
    assert isinstance(error.message, str)
    assert error.fields == {"a": "[1]"}


def test_folders_and_control_characters_stay_out() -> None:
    said = {"type": "OSError\x1b", "detail": "can't read '/home/me/secret/model.pt2'\x9b\u202e"}
    message = str(ending.failed_inside(said, **WHERE))
    assert "/home" not in message
    assert "model.pt2" in message
    assert all(character.isprintable() for character in message)


def test_log_lines_keep_their_breaks_and_nothing_else() -> None:
    assert ending.for_log(b"a\r\nb\tc\x1b[2J\xff\n") == "a\nb\tc\\x1b[2J\\xff"
