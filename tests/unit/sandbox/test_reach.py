"""What a child may read at all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.sandbox import reach


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working copy on the import path, with what a user keeps in it."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "module.py").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "prunescope.db").touch()
    (tmp_path / ".env").touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path), "", "relative"])
    reach.readable.cache_clear()
    yield tmp_path
    reach.readable.cache_clear()


def test_of_a_working_copy_the_code_is_readable_and_nothing_else(checkout: Path) -> None:
    below = {path for path in reach.readable() if checkout in path.parents or path == checkout}
    assert below == {checkout / "package", checkout / "module.py"}


def test_python_and_its_packages_are_readable() -> None:
    import json

    import torch

    for module in (json, torch, reach):
        path = Path(str(module.__file__)).resolve()
        assert any(place.resolve() in path.parents for place in reach.readable()), path


def test_nobodys_home_and_no_whole_system_is_readable() -> None:
    places = set(reach.readable())
    assert not places & {
        Path("/"),
        Path("/etc"),
        Path("/home"),
        Path.home(),
        Path("/usr"),
        Path.cwd(),
    }
