"""Mutated `.pt2` archives."""

from __future__ import annotations

from pathlib import Path

from tests.attacks import kit
from tests.attacks.exported import sound, written


def test_each_is_read_or_refused(tmp_path: Path) -> None:
    seeds = [
        written(tmp_path, sound(), "free.pt2"),
        written(tmp_path, sound(dynamic=False), "fixed.pt2"),
    ]
    kit.fuzzed(seeds, "zip", "model", tmp_path)
