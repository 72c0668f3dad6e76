"""SIGKILL to the worker at random moments: the table is the one an undisturbed run gives."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from app.client import Client, export
from tests.support.live import live_server, until

pytestmark = pytest.mark.crash

KILLS = 4


class Slow(nn.Module):
    """Enough work that kills fall into the middle of it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
                for _ in range(8)
            )
        )
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("slow")
    torch.manual_seed(0)
    export(Slow().eval(), torch.zeros(2, 12, 16, 16), folder / "slow.pt2")
    rng = np.random.default_rng(0)
    np.savez(
        folder / "slow.npz",
        x_train=rng.normal(size=(400, 12, 16, 16)).astype(np.float32),
        y_train=rng.integers(0, 5, 400),
        x_tune=rng.normal(size=(2000, 12, 16, 16)).astype(np.float32),
        y_tune=rng.integers(0, 5, 2000),
    )
    return folder / "slow.pt2", folder / "slow.npz"


def table(client: Client, analysis: int) -> list[tuple]:
    found = client.call("GET", f"/api/analyses/{analysis}")
    return sorted(
        (curve["unit"], point["sparsity"], json.dumps(point, sort_keys=True))
        for curve in found["curves"]
        for point in curve["points"]
    )


def test_an_analysis_survives_kills(files: tuple[Path, Path], tmp_path: Path) -> None:
    with live_server(tmp_path / "calm") as server, server.client() as client:
        calm = client.push_files(*files)
        calm.wait(timeout_seconds=200)
        expected = table(client, calm.id)
    assert len(expected) == 9 * 19

    rng = random.Random(7)
    with (
        live_server(tmp_path / "stormy", "--lease-seconds", "1.5") as server,
        server.client() as client,
    ):
        stormy = client.push_files(*files)
        seen: list[tuple] = []
        killed = 0
        for _ in range(KILLS):
            before = len(seen)

            def more(before: int = before) -> bool:
                state = stormy.get()
                return (state["status"] != "running" and state["status"] != "queued") or (
                    len(table(client, stormy.id)) > before
                )

            until(more, seconds=120, what="new points")
            time.sleep(rng.uniform(0, 0.8))
            seen = table(client, stormy.id)
            if stormy.get()["status"] == "done":
                break
            killed += server.kill_workers()
            assert set(seen) <= set(table(client, stormy.id)), "a reported point was lost"

        # A retry gives fresh attempts should the kills have used them up.
        def done() -> bool:
            state = stormy.get()
            if state["status"] == "failed":
                assert state["error"]["code"] == "worker-died"
                client.call("POST", f"/api/jobs/{state['job_id']}/retry")
            return state["status"] == "done"

        until(done, seconds=200, what="the analysis")
        assert killed >= 2, "the kills must fall into the work"
        assert table(client, stormy.id) == expected


def test_an_experiment_goes_on_from_its_last_epoch(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    outcomes = []
    for kill in (False, True):
        with (
            live_server(tmp_path / f"run{kill}", "--lease-seconds", "1.5") as server,
            server.client() as client,
        ):
            analysis = client.push_files(*files, sparsities=[0.5]).wait(timeout_seconds=100)
            plan = client.call(
                "POST",
                "/api/plans",
                json={"analysis_id": analysis.id, "sparsities": {"body.3.0.weight": 0.9}},
            )
            body = {"plan_id": plan["id"], "epochs": 8, "learning_rate": 0.01, "baselines": []}
            experiment = client.call("POST", "/api/experiments", json=body)["id"]

            def get(client: Client = client, experiment: int = experiment) -> dict:
                return client.call("GET", f"/api/experiments/{experiment}")

            if kill:
                until(lambda: any(len(run["trajectory"]) >= 3 for run in get()["runs"]), seconds=90)
                kept = get()["runs"][0]["trajectory"]
                assert server.kill_workers() == 1
                assert get()["status"] == "running"
            until(lambda: get()["status"] not in ("queued", "running"), seconds=120)
            found = get()
            assert found["status"] == "done", found["error"]
            (run,) = found["runs"]
            if kill:
                assert run["trajectory"][: len(kept)] == kept, "a finished epoch was done again"
            run["after"].pop("latency_ms")
            outcomes.append((run["trajectory"], run["before"], run["after"], run["best_epoch"]))
    assert outcomes[0] == outcomes[1]
