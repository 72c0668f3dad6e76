"""Re-estimated batch norms through the public API: curve, plan and file are one network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load

from app.client import Client
from tests.support.live import LiveServer, finished
from tests.support.sample import Sample
from worker.sample import DigitsNet

pytestmark = pytest.mark.slow

UNIT, LEVEL = "block1.second.conv.weight", 0.9


@pytest.fixture(scope="module")
def client(shared_server: LiveServer):
    with shared_server.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def analyses(client: Client, sample: Sample) -> dict[bool, dict[str, Any]]:
    """One with the statistics as they were trained, one with new ones."""
    model = client.upload("models", sample.model_path)
    dataset = client.upload("datasets", sample.dataset_path)
    client.wait_ready("models", model)
    client.wait_ready("datasets", dataset)
    found = {}
    for recalibrated in (False, True):
        body = {
            "model_id": model,
            "dataset_id": dataset,
            "sparsities": [LEVEL],
            "evaluation": {"mode": "exact"},
            "recalibrate_batch_norm": recalibrated,
        }
        made = client.call("POST", "/api/analyses", json=body)
        done = finished(client, f"/api/analyses/{made['id']}", seconds=240)
        assert done["status"] == "done", done["error"]
        found[recalibrated] = done
    return found


def point_of(analysis: dict[str, Any]) -> dict[str, Any]:
    (curve,) = (curve for curve in analysis["curves"] if curve["unit"] == UNIT)
    return curve["points"][0]


def test_new_statistics_are_other_facts(analyses: dict[bool, dict[str, Any]]) -> None:
    old, new = point_of(analyses[False]), point_of(analyses[True])
    assert old["loss"] != new["loss"]
    assert analyses[True]["known"] == 0


def test_the_file_has_the_statistics_and_the_points_figures(
    client: Client, analyses: dict[bool, dict[str, Any]], sample: Sample
) -> None:
    point = point_of(analyses[True])
    body = {"analysis_id": analyses[True]["id"], "sparsities": {UNIT: LEVEL}}
    plan = client.call("POST", "/api/plans", json=body)
    job = client.call("POST", f"/api/plans/{plan['id']}/measure", json={"split": "tune"})
    assert finished(client, f"/api/jobs/{job['id']}")["state"] == "done"
    (measured,) = client.call("GET", f"/api/plans/{plan['id']}")["measurements"]
    assert measured["accuracy"] == point["accuracy"]
    assert measured["loss"] == pytest.approx(point["loss"], rel=1e-5)
    answer = client._http.get(f"/api/plans/{plan['id']}/checkpoint?format=safetensors")
    assert answer.status_code == 200, answer.text
    state = load(answer.content)
    dense = sample.network.state_dict()
    changed = {key for key, value in state.items() if not torch.equal(value, dense[key])}
    assert UNIT in changed
    assert {key.rpartition(".")[2] for key in changed - {UNIT}} <= {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    assert len(changed) > 1
    network = DigitsNet()
    network.load_state_dict(state, strict=True)
    assert sample.correct(network, "tune") == round(point["accuracy"] * point["samples"])


def test_retraining_starts_from_the_same_network(
    client: Client, analyses: dict[bool, dict[str, Any]]
) -> None:
    befores = {}
    for recalibrated, analysis in analyses.items():
        body = {"analysis_id": analysis["id"], "sparsities": {UNIT: LEVEL}}
        plan = client.call("POST", "/api/plans", json=body)
        body = {"plan_id": plan["id"], "epochs": 1, "baselines": ["uniform"]}
        created = client.call("POST", "/api/experiments", json=body)
        done = finished(client, f"/api/experiments/{created['id']}", seconds=240)
        assert done["status"] == "done", done["error"]
        for run in done["runs"]:
            befores[run["name"], recalibrated] = run["before"]["loss"]
    assert befores["plan", False] != befores["plan", True]
    assert befores["uniform", False] != befores["uniform", True]
