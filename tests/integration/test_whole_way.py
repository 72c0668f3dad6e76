"""The main job through the public API: what the server says is what the file does."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file

from app.client import Client
from tests.support.live import LiveServer, finished, until
from tests.support.sample import Sample
from worker.sample import DigitsNet

GRID = [0.0, 0.3, 0.5, 0.8, 0.9, 0.95, 1.0]


@pytest.fixture(scope="module")
def client(shared_server: LiveServer):
    with shared_server.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def analysis(client: Client, sample: Sample) -> dict:
    handle = client.push_files(sample.model_path, sample.dataset_path, sparsities=GRID)
    handle.wait(timeout_seconds=120)
    return handle.get()


def pruned(network: torch.nn.Module, sparsities: dict[str, float]) -> torch.nn.Module:
    """The contract's words, done slowly and separately from the engine."""
    clone = DigitsNet()
    state = {k: v.clone() for k, v in network.state_dict().items()}
    for unit, sparsity in sparsities.items():
        flat = state[unit].flatten().numpy()
        order = sorted(range(flat.size), key=lambda i: (abs(float(flat[i])), i))
        flat[order[: round(sparsity * flat.size)]] = 0.0
    clone.load_state_dict(state)
    return clone.eval()


def download(client: Client, path: str) -> bytes:
    response = client._http.get(path)
    assert response.status_code == 200, response.text
    assert "attachment" in response.headers["content-disposition"]
    assert response.headers["x-content-type-options"] == "nosniff"
    return response.content


def test_the_model_page_knows_the_users_own_names(client: Client, analysis: dict, sample: Sample):
    model = client.call("GET", f"/api/models/{analysis['model_id']}")
    assert model["status"] == "ready"
    assert model["parameters"] == sum(p.numel() for p in sample.network.parameters())
    units = {unit["id"]: unit for unit in model["units"]["weight"]}
    assert set(units) == {name for name, _ in sample.network.named_parameters()}
    for name, parameter in sample.network.named_parameters():
        assert units[name]["size"] == parameter.numel()
        assert units[name]["prunable"] == (parameter.dim() > 1)
    macs = {layer["path"]: layer["macs"] for layer in model["layers"]}
    assert macs["stem.conv"] == 16 * 1 * 9 * 64
    assert macs["down.conv"] == 32 * 16 * 9 * 16
    assert macs["head"] == 320
    assert download(client, f"/api/models/{model['id']}/file") == sample.model_path.read_bytes()


def test_every_point_equals_the_naive_loop(analysis: dict, sample: Sample):
    assert analysis["status"] == "done"
    assert analysis["baseline"]["accuracy"] * 359 == pytest.approx(
        sample.correct(sample.network, "tune")
    )
    units = {curve["unit"] for curve in analysis["curves"]}
    assert units == {n for n, p in sample.network.named_parameters() if p.dim() > 1}
    checked = 0
    for curve in analysis["curves"]:
        assert [point["sparsity"] for point in curve["points"]] == GRID
        for point in curve["points"]:
            naive = sample.correct(
                pruned(sample.network, {curve["unit"]: point["sparsity"]}), "tune"
            )
            assert round(point["accuracy"] * point["samples"]) == naive
            assert point["low"] <= point["accuracy"] <= point["high"]
            checked += 1
    assert checked == len(units) * len(GRID)


def test_the_csv_has_the_same_points(client: Client, analysis: dict):
    text = client._http.get(f"/api/analyses/{analysis['id']}/curves.csv").text
    rows = list(csv.DictReader(io.StringIO(text)))
    points = {
        (curve["unit"], point["sparsity"]): point
        for curve in analysis["curves"]
        for point in curve["points"]
    }
    assert len(rows) == len(points)
    for row in rows:
        point = points[row["unit"], float(row["sparsity"])]
        assert float(row["accuracy"]) == point["accuracy"]
        assert int(row["flips"]) == point["flips"]


def test_a_second_analysis_measures_nothing_again(client: Client, analysis: dict):
    body = {
        "model_id": analysis["model_id"],
        "dataset_id": analysis["dataset_id"],
        "sparsities": [0.5, 0.9],
    }
    created = client.call("POST", "/api/analyses", json=body)
    again = finished(client, f"/api/analyses/{created['id']}")
    assert again["status"] == "done"
    assert again["known"] == 2 * len(again["curves"])
    old = {
        (curve["unit"], p["sparsity"]): p for curve in analysis["curves"] for p in curve["points"]
    }
    for curve in again["curves"]:
        for point in curve["points"]:
            assert point == old[curve["unit"], point["sparsity"]]


@pytest.fixture(scope="module")
def plan(client: Client, analysis: dict) -> dict:
    sparsities = {
        "block1.second.conv.weight": 0.6,
        "down.conv.weight": 0.7,
        "block2.first.conv.weight": 0.9,
        "head.weight": 0.25,
    }
    body = {"analysis_id": analysis["id"], "sparsities": sparsities}
    made = client.call("POST", "/api/plans", json=body)
    job = client.call("POST", f"/api/plans/{made['id']}/measure", json={"split": "tune"})
    assert finished(client, f"/api/jobs/{job['id']}")["state"] == "done"
    return client.call("GET", f"/api/plans/{made['id']}")


def test_a_measured_plan_is_the_joint_pruning(plan: dict, sample: Sample):
    twin = pruned(sample.network, plan["sparsities"])
    (measured,) = plan["measurements"]
    assert measured["split"] == "tune"
    assert round(measured["accuracy"] * measured["samples"]) == sample.correct(twin, "tune")
    assert measured["low"] <= measured["accuracy"] <= measured["high"]
    weights = [p for p in twin.parameters() if p.dim() > 1]
    zeros = sum(int((w == 0).sum()) for w in weights)
    assert measured["sparsity"] == pytest.approx(zeros / sum(w.numel() for w in weights))
    assert plan["predicted"]["sparsity"] == pytest.approx(measured["sparsity"])
    assert plan["predicted"]["parameters"] == sum(p.numel() for p in twin.parameters()) - zeros


@pytest.mark.parametrize("file_format", ["safetensors", "pth"])
def test_the_download_does_what_the_page_said(
    client: Client, plan: dict, sample: Sample, file_format: str
):
    content = download(client, f"/api/plans/{plan['id']}/checkpoint?format={file_format}")
    if file_format == "safetensors":
        state = load(content)
    else:
        state = torch.load(io.BytesIO(content), weights_only=True)
    twin = pruned(sample.network, plan["sparsities"])
    original = sample.network.state_dict()
    assert set(state) == set(original)
    for key, value in original.items():
        assert state[key].shape == value.shape
        assert state[key].dtype == value.dtype
        assert torch.equal(state[key], twin.state_dict()[key]), key
    loaded = DigitsNet()
    loaded.load_state_dict(state, strict=True)
    (measured,) = plan["measurements"]
    assert sample.correct(loaded, "tune") == round(measured["accuracy"] * measured["samples"])


def test_the_recipe_says_what_was_done(client: Client, plan: dict, analysis: dict, sample: Sample):
    recipe = json.loads(download(client, f"/api/plans/{plan['id']}/checkpoint?format=recipe"))
    model = client.call("GET", f"/api/models/{analysis['model_id']}")
    answer = client._http.get(f"/api/plans/{plan['id']}/checkpoint?format=recipe")
    assert answer.headers["content-type"] == "application/json"
    assert recipe["model"]["sha256"] == model["sha256"]
    assert recipe["criterion"] == "magnitude"
    twin = pruned(sample.network, plan["sparsities"])
    removed = {unit["id"]: unit["removed"] for unit in recipe["units"]}
    for unit in plan["sparsities"]:
        assert removed[unit] == int((twin.state_dict()[unit] == 0).sum())
    assert recipe["result"]["measured"][0]["accuracy"] == plan["measurements"][0]["accuracy"]


@pytest.mark.slow
def test_retraining_wins_back_and_the_file_keeps_its_zeros(
    client: Client, plan: dict, analysis: dict, sample: Sample
):
    strong = dict.fromkeys(plan["sparsities"], 0.95)
    made = client.call(
        "POST", "/api/plans", json={"analysis_id": analysis["id"], "sparsities": strong}
    )
    body = {"plan_id": made["id"], "schedule": "one-shot", "epochs": 3}
    body["baselines"] = ["uniform", "random"]
    created = client.call("POST", "/api/experiments", json=body)
    done = finished(client, f"/api/experiments/{created['id']}", seconds=240)
    assert done["status"] == "done", done["error"]
    runs = {run["name"]: run for run in done["runs"]}
    assert set(runs) == {"plan", "uniform", "random"}
    for run in runs.values():
        assert [row["epoch"] for row in run["trajectory"]] == [0, 1, 2, 3]
        assert run["after"]["samples"] == len(sample.labels("test"))
        assert run["after"]["low"] <= run["after"]["accuracy"] <= run["after"]["high"]
    parameters = {run["after"]["parameters"] for run in runs.values()}
    assert len(parameters) == 1, "baselines have the plan's size"
    assert runs["plan"]["after"]["accuracy"] > runs["plan"]["before"]["accuracy"]
    for name, run in runs.items():
        state = load(
            download(
                client,
                f"/api/experiments/{created['id']}/checkpoint?run={name}&format=safetensors",
            )
        )
        network = DigitsNet()
        network.load_state_dict(state, strict=True)
        assert sample.correct(network, "test") == round(
            run["after"]["accuracy"] * run["after"]["samples"]
        )
        zeros = sum(int((p == 0).sum()) for p in network.parameters() if p.dim() > 1)
        total = sum(p.numel() for p in network.parameters())
        assert total - zeros == run["after"]["parameters"]
    plan_state = load(
        download(client, f"/api/experiments/{created['id']}/checkpoint?run=plan&format=safetensors")
    )
    shot = pruned(sample.network, strong)
    for unit in strong:
        assert torch.equal(plan_state[unit] == 0, shot.state_dict()[unit] == 0), unit


def test_masks_are_the_kept_weights(client: Client, plan: dict, sample: Sample, tmp_path: Path):
    path = tmp_path / "masks.safetensors"
    path.write_bytes(download(client, f"/api/plans/{plan['id']}/checkpoint?format=masks"))
    masks = load_file(path)
    twin = pruned(sample.network, plan["sparsities"]).state_dict()
    for unit, sparsity in plan["sparsities"].items():
        assert masks[unit].dtype == torch.bool
        assert int((~masks[unit]).sum()) == round(sparsity * masks[unit].numel())
        assert torch.equal(sample.network.state_dict()[unit] * masks[unit], twin[unit])


def test_a_failed_import_leaves_a_reason_and_nothing_else(
    client: Client, shared_server: LiveServer, tmp_path: Path
):
    evil = tmp_path / "evil.pt2"
    torch.save(DigitsNet(), evil)
    made = client.upload("models", evil)
    model = finished(client, f"/api/models/{made}")
    assert model["status"] == "failed"
    assert "torch.export" in model["error"]["hint"] + model["error"]["message"]
    page = httpx.get(
        f"{shared_server.url}/models/{made}",
        headers={"Authorization": f"Bearer {shared_server.token}", "Accept": "text/html"},
    )
    assert page.status_code == 200
    refused = httpx.post(
        f"{shared_server.url}/api/analyses",
        headers={"Authorization": f"Bearer {shared_server.token}"},
        json={"model_id": made, "dataset_id": 1},
    )
    assert refused.status_code in (409, 422)
    assert not list((shared_server.data_dir / "incoming").glob("*"))


def test_inputs_that_do_not_fit_name_both_shapes(client: Client, sample: Sample, tmp_path: Path):
    path = tmp_path / "wide.npz"
    x = np.zeros((40, 3, 9, 9), np.float32)
    np.savez(path, x=x, y=np.arange(40) % 10)
    model = client.upload("models", sample.model_path)
    dataset = client.upload("datasets", path)
    client.wait_ready("models", model)
    client.wait_ready("datasets", dataset)
    analysis = client.analyse(model, dataset)
    failed = until(lambda: (s := analysis.get())["status"] == "failed" and s, seconds=60)
    assert failed
    message = failed["error"]["message"] + failed["error"]["hint"]
    assert "1, 8, 8" in message.replace("×", ", ").replace(" x ", ", ")
    assert "3, 9, 9" in message.replace("×", ", ").replace(" x ", ", ")
