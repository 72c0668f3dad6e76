"""The intervals of a regression, from the tally itself, on populations that are known."""

from __future__ import annotations

import numpy as np
import torch

from worker.engine.objectives import Regression

TRIALS = 1500


def test_intervals_of_a_regression_cover_the_truth() -> None:
    """y = x + noise, predicted by x: MSE 1, MAE sqrt(2 / pi), R² = 4 / 5."""
    generator = np.random.default_rng(5)
    truth = {"mse": 1.0, "mae": float(np.sqrt(2 / np.pi)), "r2": 0.8}
    covered = dict.fromkeys(truth, 0)
    for _ in range(TRIALS):
        x = 2 * generator.standard_normal(300)
        y = x + generator.standard_normal(300) + 50
        tally = Regression((), np.array([y.mean()])).tally(1)
        outputs = torch.from_numpy(x + 50)[None, :, None]
        for start in range(0, 300, 128):
            own = slice(start, start + 128)
            tally.add(outputs[:, own], torch.from_numpy(y[own]), None)
        found = tally.evaluation(0).as_json(0.95)["metrics"]
        for name, value in truth.items():
            covered[name] += found[name]["low"] <= value <= found[name]["high"]
    for name, count in covered.items():
        assert 0.92 < count / TRIALS < 0.97, (name, count / TRIALS)


def test_several_numbers_have_a_share_of_variance_without_an_interval() -> None:
    labels = torch.randn(20, 3)
    tally = Regression((3,), labels.double().mean(0).numpy()).tally(1)
    tally.add(labels[None] + 0.1, labels, None)
    told = tally.evaluation(0).as_json()["metrics"]
    assert told["r2"]["value"] is not None
    assert told["r2"]["low"] is None
    assert told["mse"]["low"] is not None
