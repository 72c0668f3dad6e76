"""Criteria that learn from data, through the public API: curve, plan and file are one network."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from app.client import Client
from tests.support.live import LiveServer, finished
from tests.support.sample import Sample
from worker.sample import DigitsNet

pytestmark = pytest.mark.slow

CRITERIA = ["magnitude", "taylor", "wanda", "sparsegpt-update", "bn-scale"]
UNIT, LEVEL = "block1.second.conv.weight", 0.8


@pytest.fixture(scope="module")
def client(shared_server: LiveServer):
    with shared_server.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def analysis(client: Client, sample: Sample) -> dict[str, Any]:
    model = client.upload("models", sample.model_path)
    dataset = client.upload("datasets", sample.dataset_path)
    client.wait_ready("models", model)
    client.wait_ready("datasets", dataset)
    body = {
        "model_id": model,
        "dataset_id": dataset,
        "criteria": CRITERIA,
        "sparsities": [0.5, LEVEL],
        "evaluation": {"mode": "exact"},
    }
    made = client.call("POST", "/api/analyses", json=body)
    done = finished(client, f"/api/analyses/{made['id']}", seconds=240)
    assert done["status"] == "done", done["error"]
    return done


def planned(client: Client, analysis: dict[str, Any], criterion: str, **sparsities: float) -> dict:
    body = {"analysis_id": analysis["id"], "criterion": criterion, "sparsities": sparsities}
    made = client.call("POST", "/api/plans", json=body)
    job = client.call("POST", f"/api/plans/{made['id']}/measure", json={"split": "tune"})
    assert finished(client, f"/api/jobs/{job['id']}")["state"] == "done"
    return client.call("GET", f"/api/plans/{made['id']}")


def state_of(client: Client, plan: dict, form: str = "safetensors") -> dict[str, torch.Tensor]:
    answer = client._http.get(f"/api/plans/{plan['id']}/checkpoint?format={form}")
    assert answer.status_code == 200, answer.text
    if form == "pth":
        return torch.load(io.BytesIO(answer.content), weights_only=True)
    return load(answer.content)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_file_of_one_unit_has_the_points_figures(
    client: Client, analysis: dict[str, Any], sample: Sample, criterion: str
) -> None:
    (curve,) = (c for c in analysis["curves"] if c["unit"] == UNIT and c["criterion"] == criterion)
    (point,) = (p for p in curve["points"] if p["sparsity"] == LEVEL)
    plan = planned(client, analysis, criterion, **{UNIT: LEVEL})
    (measured,) = plan["measurements"]
    assert measured["accuracy"] == point["accuracy"]
    state = state_of(client, plan)
    network = DigitsNet()
    network.load_state_dict(state, strict=True)
    correct = sample.correct(network, "tune")
    assert correct == round(point["accuracy"] * point["samples"])
    dense = sample.network.state_dict()
    size = dense[UNIT].numel()
    assert int((state[UNIT] == 0).sum()) == round(LEVEL * size)
    assert all(torch.equal(state[key], value) for key, value in dense.items() if key != UNIT)
    changed = state[UNIT] != dense[UNIT]
    only_zeros = bool((state[UNIT][changed] == 0).all())
    assert only_zeros == (criterion != "sparsegpt-update")
    if criterion == "sparsegpt-update":
        masks = state_of(client, plan, "masks")
        assert torch.equal(~masks[UNIT], state[UNIT] == 0)


def test_a_joint_plan_and_its_experiment_hold_the_new_weights(
    client: Client, analysis: dict[str, Any], sample: Sample
) -> None:
    sparsities = {UNIT: 0.6, "down.conv.weight": 0.5, "head.weight": 0.3}
    plan = planned(client, analysis, "sparsegpt-update", **sparsities)
    state = state_of(client, plan, "pth")
    network = DigitsNet()
    network.load_state_dict(state, strict=True)
    (measured,) = plan["measurements"]
    assert sample.correct(network, "tune") == round(measured["accuracy"] * measured["samples"])
    body = {
        "plan_id": plan["id"],
        "schedule": "one-shot",
        "epochs": 1,
        "baselines": ["uniform"],
        "seed": 5,
    }
    created = client.call("POST", "/api/experiments", json=body)
    done = finished(client, f"/api/experiments/{created['id']}", seconds=240)
    assert done["status"] == "done", done["error"]
    (run,) = (run for run in done["runs"] if run["name"] == "plan")
    # Before any training it is the plan's own network, whatever the experiment's seed.
    assert sample.correct(network, "test") == round(
        run["before"]["accuracy"] * run["before"]["samples"]
    )
    answer = client._http.get(
        f"/api/experiments/{created['id']}/checkpoint?run=plan&format=safetensors"
    )
    trained = load(answer.content)
    for unit in sparsities:
        assert torch.equal(trained[unit] == 0, state[unit] == 0)


def test_a_unit_without_an_order_says_why(analysis: dict[str, Any]) -> None:
    said = {(r["unit"], r["criterion"]): r["reason"] for r in analysis["remarks"]}
    assert "No batch norm follows" in said["head.weight", "bn-scale"]
    curves = {(c["unit"], c["criterion"]): c["points"] for c in analysis["curves"]}
    assert not curves.get(("head.weight", "bn-scale"))
    assert all(np.isfinite(p["accuracy"]) for points in curves.values() for p in points)
