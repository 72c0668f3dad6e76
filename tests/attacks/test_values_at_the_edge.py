"""Numbers at the ends of their range, in weights, samples, labels and words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.attacks import kit

EDGES = {
    "the whole range": [-3.4028235e38, 3.4028235e38, 0.0],
    "the smallest numbers": [1e-45, 0.0, 3e-45],
    "nearly one number": [1.0, 1.0000001, 1.0],
    "no number": [float("nan")] * 3,
    "infinite": [float("inf"), -float("inf"), 1.0],
    "minus zero": [-0.0, 0.0, -0.0],
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("edge", EDGES)
def test_weights(tmp_path: Path, edge: str, dtype: torch.dtype) -> None:
    """Found by the fuzzer: the histogram of a range that float32 itself can't hold."""
    values = torch.tensor(EDGES[edge], dtype=torch.float64)
    if dtype is torch.float64:
        values = values * 5e269
    path = tmp_path / "w.safetensors"
    save_file({"a.weight": values.to(dtype).reshape(1, 3)}, path)
    outcome = kit.read_model(path)
    kit.harmless(outcome)
    assert outcome.value["details"]["kind"] == "weights"


@pytest.mark.parametrize("edge", EDGES)
def test_samples(tmp_path: Path, edge: str) -> None:
    x = np.tile(np.array(EDGES[edge], np.float32), (40, 1))
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(40) % 2)
    outcome = kit.read_dataset(tmp_path / "x.npz")
    kit.harmless(outcome)
    if outcome.error:
        kit.refused(outcome)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("code", [0x110000, 0xD800, 0xFFFFFFFF, 0, 0x41])
def test_words_of_no_letters(tmp_path: Path, code: int, order: str) -> None:
    """Found by the fuzzer: numpy takes any four bytes for a letter, Python does not."""
    word = np.array([code] * 4, f"{order}u4").view(f"{order}U4")[:1].reshape(())
    x = np.zeros((40, 2, 2, 3), np.float32)
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(40) % 2, layout=word)
    kit.refused(kit.read_dataset(tmp_path / "x.npz"))
