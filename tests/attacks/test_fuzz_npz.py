"""Mutated `.npz` archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.attacks import kit


def test_each_is_read_or_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"x": rng.integers(0, 255, (30, 4, 4, 3), np.uint8), "y": np.arange(30) % 3,
              "scale": np.float32(1 / 255), "layout": np.array("nhwc")}  # fmt: skip
    np.savez(tmp_path / "stored.npz", **arrays)
    np.savez_compressed(tmp_path / "packed.npz", **arrays)
    seeds = [tmp_path / "stored.npz", tmp_path / "packed.npz"]
    kit.fuzzed(seeds, "zip", "dataset", tmp_path)
