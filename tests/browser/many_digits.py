"""The sample network with a tune split so large that only a part of it is looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from app.client import export
from tests.support.sample import Sample
from worker.sample import DigitsNet

TUNE = 4_000


def many(
    arrays: dict[str, np.ndarray], samples: int = TUNE, seed: int = 0
) -> dict[str, np.ndarray]:
    """The digits with a tune split `[samples, 1, 8, 8]` of noisy, dimmed copies."""
    random = np.random.default_rng(seed)
    chosen = random.integers(0, len(arrays["x_tune"]), samples)
    noise = random.normal(0, 3, (samples, 1, 8, 8))
    light = random.uniform(0.6, 1.1, (samples, 1, 1, 1))
    x = np.clip(arrays["x_tune"][chosen] * light + noise, 0, 16)
    return arrays | {"x_tune": x.astype(np.uint8), "y_tune": arrays["y_tune"][chosen]}


def write_many(sample: Sample, folder: Path, samples: int = TUNE) -> tuple[Path, Path]:
    """Paths of the model and of the larger data set."""
    data = folder / "many.npz"
    np.savez(data, allow_pickle=False, **many(sample.arrays, samples))
    return sample.model_path, data


def write_dead(sample: Sample, folder: Path) -> Path:
    """The same network, the weights of one layer all zero."""
    network = DigitsNet()
    network.load_state_dict(sample.network.state_dict())
    with torch.no_grad():
        network.block1.second.conv.weight.zero_()
    path = folder / "dead.pt2"
    export(network.eval(), torch.zeros(2, 1, 8, 8), path)
    return path
