"""How quickly pages and API calls answer while the worker computes: printed, never asserted."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from torch import nn

from app.client import export
from tests.support.live import live_server, until

pytestmark = pytest.mark.benchmark

ROUNDS = 60


def test_calls_while_a_worker_computes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    wide = nn.Sequential(
        *(m for _ in range(10) for m in (nn.Conv2d(24, 24, 3, padding=1), nn.ReLU())),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )
    export(wide, torch.zeros(2, 24, 24, 24), tmp_path / "wide.pt2")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 24, 24, 24)).astype(np.float32)
    np.savez(tmp_path / "wide.npz", x_tune=x, y_tune=rng.integers(0, 10, len(x)))
    with live_server(tmp_path / "data") as server, server.client() as client:
        analysis = client.push_files(tmp_path / "wide.pt2", tmp_path / "wide.npz")
        until(lambda: analysis.get()["baseline"], seconds=120)
        paths = [
            "/",
            "/jobs",
            f"/analyses/{analysis.id}",
            f"/api/analyses/{analysis.id}",
            "/api/jobs",
            "/api/models/1",
        ]
        taken: dict[str, list[float]] = {path: [] for path in paths}
        headers = {"Authorization": f"Bearer {server.token}"}
        with httpx.Client(base_url=server.url, headers=headers) as http:
            for _ in range(ROUNDS):
                for path in paths:
                    started = time.perf_counter()
                    response = http.get(path, headers={"Accept": "text/html, application/json"})
                    taken[path].append((time.perf_counter() - started) * 1000)
                    assert response.status_code == 200, (path, response.text[:300])
        assert analysis.get()["status"] == "running", "the load must outlast the measurement"
        (worker,) = server.workers()
        # The computing is done by the children of its children.
        family = [worker, *worker.children(recursive=True)]
        for process in family:
            process.cpu_percent()
        time.sleep(1)
        print(f"\nworker at {sum(process.cpu_percent() for process in family):.0f} % CPU")
        for path, times in taken.items():
            low, middle, high = np.percentile(times, [5, 50, 95])
            print(f"{path:<24} p5 {low:6.1f}  median {middle:6.1f}  p95 {high:6.1f} ms")
        together = np.concatenate([np.array(times) for times in taken.values()])
        print(f"{'all':<24} p95 {np.percentile(together, 95):.1f} ms over {len(together)} calls")
