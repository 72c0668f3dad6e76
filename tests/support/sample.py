"""A small trained network and its data, made once a test session: real digits, real accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from app.client import export
from worker.sample import DigitsNet, digits, train


@dataclass(frozen=True)
class Sample:
    """`network` in eval mode, as its user has it; the files are what that user uploads."""

    network: DigitsNet
    arrays: dict[str, np.ndarray]
    model_path: Path
    dataset_path: Path

    def inputs(self, split: str) -> torch.Tensor:
        """`[samples, 1, 8, 8]` as the network wants them."""
        return torch.from_numpy(self.arrays[f"x_{split}"]).float() * float(self.arrays["scale"])

    def labels(self, split: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[f"y_{split}"])

    def correct(self, network: torch.nn.Module, split: str) -> int:
        with torch.inference_mode():
            answers = network.eval()(self.inputs(split)).argmax(1)
        return int((answers == self.labels(split)).sum())


def make_sample(folder: Path) -> Sample:
    arrays = digits()
    network, _ = train(arrays)
    model_path, dataset_path = folder / "digits.pt2", folder / "digits.npz"
    export(network, torch.zeros(2, 1, 8, 8), model_path)
    np.savez(dataset_path, **arrays)
    return Sample(network, arrays, model_path, dataset_path)
