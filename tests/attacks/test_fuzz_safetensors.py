"""Mutated safetensors files, as weights and as data."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.attacks import kit


def test_each_as_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    tensors = {"a.weight": torch.rand(4, 3), "a.bias": torch.rand(4), "n": torch.arange(6)}
    save_file(tensors, path, metadata={"format": "pt"})
    kit.fuzzed([path], "header", "model", tmp_path)


def test_each_as_data(tmp_path: Path) -> None:
    path = tmp_path / "data.safetensors"
    y = torch.arange(20) % 2
    save_file({"x_train": torch.rand(20, 3), "y_train": y, "x_test": torch.rand(8, 3),
               "y_test": y[:8].clone()}, path, metadata={"layout": "nchw"})  # fmt: skip
    plain = tmp_path / "plain.safetensors"
    save_file({"x": torch.rand(20, 3).half(), "y": y.to(torch.uint8)}, plain)
    kit.fuzzed([path, plain], "header", "dataset", tmp_path)
