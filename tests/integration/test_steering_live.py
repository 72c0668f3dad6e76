"""Pauses, cancels and priorities with a real server, a real worker and children behind walls."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app.client import Client, export
from tests.support.live import LiveServer, live_server, until

pytestmark = pytest.mark.slow


class Slow(nn.Module):
    """Enough work that a pause falls into the middle of it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()) for _ in range(10))
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("slow")
    torch.manual_seed(0)
    export(Slow().eval(), torch.zeros(2, 16, 20, 20), folder / "slow.pt2")
    rng = np.random.default_rng(0)
    np.savez(
        folder / "slow.npz",
        x_tune=rng.normal(size=(3000, 16, 20, 20)).astype(np.float32),
        y_tune=rng.integers(0, 5, 3000),
    )
    return folder / "slow.pt2", folder / "slow.npz"


@pytest.fixture
def client(server: LiveServer) -> Iterator[Client]:
    with server.client() as opened:
        yield opened


def job_of(client: Client, analysis: Any) -> dict[str, Any]:
    return client.call("GET", f"/api/jobs/{analysis.get()['job_id']}")


def points(analysis: Any) -> int:
    return analysis.get()["cells"]["settled"]


def test_a_pause_is_heard_within_a_second_and_keeps_what_there_is(
    client: Client, files: tuple[Path, Path]
) -> None:
    analysis = client.push_files(*files, evaluation={"mode": "exact"})
    until(lambda: points(analysis) > 0, seconds=120)
    number = analysis.get()["job_id"]
    asked = time.monotonic()
    paused = client.call("POST", f"/api/jobs/{number}/pause")
    assert paused["paused"] is True
    until(lambda: job_of(client, analysis)["state"] == "queued", seconds=20)
    print(f"\nheard after {time.monotonic() - asked:.2f} s")
    kept = points(analysis)
    assert kept > 0
    time.sleep(1.5)
    assert (job_of(client, analysis)["state"], points(analysis)) == ("queued", kept)
    shown = analysis.get()
    assert (shown["status"], shown["paused"]) == ("queued", True)
    client.call("POST", f"/api/jobs/{number}/resume")
    until(lambda: job_of(client, analysis)["state"] == "running", seconds=20)
    asked = time.monotonic()
    client.call("POST", f"/api/jobs/{number}/cancel")
    until(lambda: job_of(client, analysis)["state"] == "cancelled", seconds=20)
    print(f"cancelled after {time.monotonic() - asked:.2f} s")
    assert points(analysis) >= kept


def test_the_urgent_goes_first_and_the_other_goes_on(
    client: Client, files: tuple[Path, Path]
) -> None:
    long = client.push_files(*files, evaluation={"mode": "exact"}, priority="low")
    until(lambda: points(long) > 0, seconds=120)
    shown = long.get()
    assert shown["priority"] == "low"
    ids = shown["model_id"], shown["dataset_id"]
    urgent = client.analyse(*ids, sparsities=[0.5], evaluation={"half_width": 0.2}, priority="high")
    urgent.wait(timeout_seconds=200)
    assert long.get()["status"] in ("queued", "running"), "it gave way"
    client.call("POST", f"/api/jobs/{long.get()['job_id']}/cancel")


def test_two_children_find_what_one_finds(files: tuple[Path, Path], tmp_path: Path) -> None:
    tables = []
    for number in (1, 2):
        with (
            live_server(tmp_path / str(number), "--processes", str(number)) as server,
            server.client() as client,
        ):
            analysis = client.push_files(
                *files, sparsities=[0.5, 0.9], evaluation={"half_width": 0.03}
            )
            analysis.wait(timeout_seconds=250)
            tables.append(analysis.get()["curves"])
    for one, two in zip(*tables, strict=True):
        assert one["unit"] == two["unit"]
        for first, second in zip(one["points"], two["points"], strict=True):
            assert first["samples"] == second["samples"]
            assert first["drop"] == pytest.approx(second["drop"], abs=1e-9)
