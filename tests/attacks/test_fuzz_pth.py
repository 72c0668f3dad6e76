"""Mutated files of torch.save, in both of its forms."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch

from tests.attacks import kit


def test_each_is_read_or_refused(tmp_path: Path) -> None:
    weights = OrderedDict(a=torch.rand(4, 3), b=torch.nn.Parameter(torch.rand(4)))
    weights["c"] = weights["a"]
    nested = {"epoch": 3, "state_dict": weights, "args": {"lr": 0.1, "names": ["x", "y"]}}
    for name, value in (("plain", weights), ("nested", nested)):
        torch.save(value, tmp_path / f"{name}.pth")
    zipped = [tmp_path / "plain.pth", tmp_path / "nested.pth"]
    kit.fuzzed(zipped, "zip", "model", tmp_path)


def test_each_from_before_zips(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    weights = OrderedDict(a=torch.rand(4, 3), b=torch.rand(4), c=torch.arange(5))
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    kit.fuzzed([path], "bytes", "model", tmp_path)
