"""One worker, a long analysis, and somebody who wants a short answer meanwhile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from app.client import export
from tests.support.live import LiveServer, finished, until

pytestmark = pytest.mark.slow


def test_a_measurement_does_not_wait_for_a_long_analysis(
    server: LiveServer, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        *(m for _ in range(8) for m in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )
    export(network, torch.zeros(2, 16, 16, 16), tmp_path / "net.pt2")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2500, 16, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "net.npz", x_tune=x, y_tune=rng.integers(0, 4, len(x)))
    with server.client() as client:
        files = tmp_path / "net.pt2", tmp_path / "net.npz"
        analysis = client.push_files(*files, evaluation={"mode": "exact"})
        until(lambda: analysis.get()["cells"]["settled"] > 5, seconds=60)
        body = {"analysis_id": analysis.id, "sparsities": {"0.weight": 0.5}}
        plan = client.call("POST", "/api/plans", json=body)["id"]
        before = analysis.get()
        seen = {c["unit"]: [p for p in c["points"] if p["settled"]] for c in before["curves"]}
        job = client.call("POST", f"/api/plans/{plan}/measure", json={"split": "tune"})["id"]
        assert finished(client, f"/api/jobs/{job}", seconds=60)["state"] == "done"
        meanwhile = analysis.get()
        assert meanwhile["status"] in ("queued", "running"), "the analysis was to be long"
        analysis.wait(timeout_seconds=200)
        after = analysis.curves()
        for unit, points in seen.items():
            assert [p for p in after[unit] if p in points] == points
        assert client.call("GET", f"/api/jobs/{before['job_id']}")["attempt"] == 1
