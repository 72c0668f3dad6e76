"""SIGKILL to the child that computes, while its worker lives: tried again, and nothing is lost."""

from __future__ import annotations

import random
import time
from pathlib import Path

import psutil
import pytest

from app.client import Client
from tests.crash.test_worker_kill import files, table
from tests.support.live import LiveServer, live_server, until

__all__ = ["files"]

pytestmark = pytest.mark.crash

LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def kill_child(server: LiveServer) -> int:
    """SIGKILL to the process that computes: the youngest below the worker. How many there were."""
    (worker,) = server.workers()
    below = worker.children(recursive=True)
    youngest = max(below, key=psutil.Process.create_time, default=None)
    if youngest is None or youngest.children():
        return 0
    youngest.kill()
    return 1


def ended(client: Client, path: str, key: str = "status") -> dict | None:
    found = client.call("GET", path)
    return None if found[key] in ("queued", "running") else found


def test_an_analysis_goes_on_after_its_child_was_killed(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    tables = []
    for kills in (0, 2):
        with live_server(tmp_path / f"with{kills}") as server, server.client() as client:
            (worker,) = until(server.workers, what="a worker")
            analysis = client.push_files(*files, sparsities=LEVELS)
            chance = random.Random(3)
            for _ in range(kills):
                before = len(table(client, analysis.id))
                until(
                    lambda a=analysis.id, c=client, n=before: len(table(c, a)) > n,
                    seconds=120,
                    what="new points",
                )
                time.sleep(chance.uniform(0, 0.5))
                seen = table(client, analysis.id)
                assert kill_child(server) == 1
                assert set(seen) <= set(table(client, analysis.id)), "a reported point was lost"
            path = f"/api/analyses/{analysis.id}"
            found = until(lambda c=client, p=path: ended(c, p), seconds=200, what="the analysis")
            assert found["status"] == "done", found["error"]
            job = client.call("GET", f"/api/jobs/{found['job_id']}")
            assert job["attempt"] == kills + 1
            assert server.workers() == [worker], "the worker itself was hit"
            tables.append(table(client, analysis.id))
    assert tables[0] == tables[1]
    assert len(tables[0]) == 9 * len(LEVELS)


def test_a_job_whose_every_child_is_killed_ends_with_a_sentence(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    with live_server(tmp_path / "data") as server, server.client() as client:
        (worker,) = until(server.workers, what="a worker")
        analysis = client.push_files(*files)
        path = f"/api/jobs/{analysis.get()['job_id']}"

        def murdered() -> dict | None:
            found = client.call("GET", path)
            if found["state"] == "running":
                kill_child(server)
            return ended(client, path, "state")

        found = until(murdered, seconds=90, every=0.2)
        assert found["state"] == "failed"
        assert found["attempt"] == 3
        assert found["error"]["code"] in ("out-of-memory", "crashed")
        assert found["error"]["message"].endswith(".")
        assert found["error"]["hint"]
        assert server.workers() == [worker]
        known = table(client, analysis.id)
        client.call("POST", f"{path}/retry")
        done = until(lambda: ended(client, f"/api/analyses/{analysis.id}"), seconds=200)
        assert done["status"] == "done", done["error"]
        assert set(known) <= set(table(client, analysis.id))


def test_an_experiment_goes_on_from_its_last_epoch_after_its_child_was_killed(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    outcomes = []
    for kill in (False, True):
        with live_server(tmp_path / f"run{kill}") as server, server.client() as client:
            analysis = client.push_files(*files, sparsities=[0.5]).wait(timeout_seconds=100)
            plan = client.call(
                "POST",
                "/api/plans",
                json={"analysis_id": analysis.id, "sparsities": {"body.3.0.weight": 0.9}},
            )
            body = {"plan_id": plan["id"], "epochs": 8, "learning_rate": 0.01, "baselines": []}
            experiment = client.call("POST", "/api/experiments", json=body)["id"]
            path = f"/api/experiments/{experiment}"
            kept: list[dict] = []
            if kill:

                def trained(client: Client = client, path: str = path) -> list[dict]:
                    runs = client.call("GET", path)["runs"]
                    return runs[0]["trajectory"] if runs else []

                kept = until(lambda: found if len(found := trained()) >= 3 else None, seconds=90)
                assert kill_child(server) == 1
            found = until(lambda c=client, p=path: ended(c, p), seconds=120, what="the experiment")
            assert found["status"] == "done", found["error"]
            (run,) = found["runs"]
            assert run["trajectory"][: len(kept)] == kept, "a finished epoch was done again"
            job = client.call("GET", f"/api/jobs/{found['job_id']}")
            assert job["attempt"] == (2 if kill else 1)
            run["after"].pop("latency_ms")
            outcomes.append((run["trajectory"], run["before"], run["after"], run["best_epoch"]))
    assert outcomes[0] == outcomes[1]
