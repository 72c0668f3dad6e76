"""Plans: what is predicted, what is measured, and what may not be asked for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.site import (
    SAMPLES,
    Site,
    correct_at,
    finish_analysis,
    finish_job,
    finish_measurement,
    problem,
    ready_dataset,
    start_analysis,
    take_job,
)


@pytest.fixture
def analysis(site: Site) -> dict[str, Any]:
    made = start_analysis(site, sparsities=[0.2, 0.4, 0.6, 0.8])
    finish_analysis(site)
    return made


def make(site: Site, analysis: dict[str, Any], **body: Any) -> dict[str, Any]:
    body.setdefault("sparsities", {"head.weight": 0.5, "conv.weight": 0.8})
    answer = site.http.post("/api/plans", json={"analysis_id": analysis["id"]} | body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_plan_is_predicted_from_the_stored_points(site: Site, analysis: dict[str, Any]):
    made = make(site, analysis, name="  first\ntry ")
    assert made["sparsities"] == {"head.weight": 0.5, "conv.weight": 0.8}
    assert made["criterion"] == "magnitude"
    assert made["name"] == "first try"
    assert made["measurements"] == []
    assert made["certificates"] == []
    predicted = made["predicted"]
    head = sum(correct_at("head.weight", level) for level in (400_000, 600_000)) / 2 / SAMPLES
    conv = correct_at("conv.weight", 800_000) / SAMPLES
    assert predicted["accuracy"] == pytest.approx(0.95 * (head / 0.95) * (conv / 0.95))
    assert predicted["low"] < predicted["accuracy"] < predicted["high"]
    # 160 of 320 and 58 of 72 weights leave; 8 biases always stay.
    assert predicted["parameters"] == 72 + 4096 + 320 + 8 - 160 - 58
    assert predicted["sparsity"] == pytest.approx((160 + 58) / (72 + 4096 + 320))
    assert predicted["macs"] == round(4608 * (1 - 58 / 72) + 4096 + 320 * 0.5)
    dense_bytes = 4 * (72 + 4096 + 320 + 8)
    # Packed as bitmap and non-zeros: 40 + 160*4 instead of 1280, 9 + 14*4 instead of 288.
    assert predicted["bytes"] == dense_bytes - (1280 - 680) - (288 - 65)
    assert site.http.get(f"/api/plans/{made['id']}").json() == made


def test_nothing_removed_is_the_intact_network(site: Site, analysis: dict[str, Any]):
    predicted = make(site, analysis, sparsities={})["predicted"]
    assert predicted["accuracy"] == pytest.approx(0.95)
    assert predicted["sparsity"] == 0
    assert predicted["bytes"] == 4 * (72 + 4096 + 320 + 8)


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"sparsities": {"haed.weight": 0.5}}, "sparsities", "Did you mean head.weight"),
        ({"sparsities": {"conv.bias": 0.5}}, "sparsities", "can't be pruned"),
        ({"sparsities": {"head.weight": 1.01}}, "sparsities.head.weight", "at most 1"),
        ({"sparsities": {"head.weight": None}}, "sparsities.head.weight", "a number"),
        ({"sparsities": [0.5]}, "sparsities", "object"),
        ({}, "sparsities", "Send sparsities"),
        ({"target": {"kind": "sparsity", "value": 0.5}}, "target", "yet"),
        ({"sparsities": {}, "pinned": {"head.weight": 0.1}}, "pinned", "yet"),
        ({"sparsities": {}, "criterion": "taylor"}, "criterion", "magnitude"),
        ({"sparsities": {}, "name": "x" * 201}, "name", "at most 200"),
    ],
)
def test_what_makes_no_sense_is_named(
    site: Site, analysis: dict[str, Any], body: dict[str, Any], field: str, words: str
):
    answer = site.http.post("/api/plans", json={"analysis_id": analysis["id"]} | body)
    document = problem(answer, 422)
    assert [error["field"] for error in document["errors"]] == [field]
    assert words in document["detail"]


def test_a_plan_needs_an_analysis_with_a_baseline(site: Site):
    problem(site.http.post("/api/plans", json={"analysis_id": 5, "sparsities": {}}), 404)
    made = start_analysis(site)
    answer = site.http.post("/api/plans", json={"analysis_id": made["id"], "sparsities": {}})
    assert "baseline" in problem(answer, 409)["detail"]


def test_measuring_is_a_job_whose_figures_stand_beside_the_prediction(
    site: Site, analysis: dict[str, Any]
):
    plan = make(site, analysis)
    answer = site.http.post(f"/api/plans/{plan['id']}/measure", json={"split": "tune"})
    assert answer.status_code == 202
    job = answer.json()
    assert job["kind"] == "measure"
    assert job["state"] == "queued"
    assert job["subject"] == {"kind": "plan", "id": plan["id"]}
    assert job["label"] == "net.pt2 · digits.npz"
    twice = site.http.post(f"/api/plans/{plan['id']}/measure").json()
    assert twice["id"] == job["id"], "a second click is no second job"
    finish_measurement(site)
    assert site.http.get(f"/api/jobs/{job['id']}").json()["state"] == "done"
    shown = site.http.get(f"/api/plans/{plan['id']}").json()
    (measured,) = shown["measurements"]
    assert measured["split"] == "tune"
    assert measured["accuracy"] == 0.9
    assert measured["low"] < 0.9 < measured["high"]
    assert measured["samples"] == SAMPLES
    assert measured["confidence"] == 0.95
    assert measured["sparsity"] == plan["predicted"]["sparsity"]
    assert shown["predicted"] == plan["predicted"], "predicted and measured never mix"
    once_more = site.http.post(f"/api/plans/{plan['id']}/measure", json={"split": "tune"})
    assert once_more.json()["id"] != job["id"], "a known measurement is still answered by a job"


@pytest.mark.parametrize(("split", "words"), [("test", "final figures"), ("train", "tune")])
def test_only_tune_is_measured(site: Site, analysis: dict[str, Any], split: str, words: str):
    plan = make(site, analysis)
    answer = site.http.post(f"/api/plans/{plan['id']}/measure", json={"split": split})
    document = problem(answer, 422)
    assert document["errors"][0]["field"] == "split"
    assert words in document["detail"]


@pytest.mark.parametrize("call", ["certify", "cross-validate"])
def test_what_is_not_there_yet_is_said(site: Site, analysis: dict[str, Any], call: str):
    plan = make(site, analysis)
    answer = site.http.post(f"/api/plans/{plan['id']}/{call}", json={"folds": 5})
    assert "yet" in problem(answer, 422)["detail"]
    problem(site.http.post(f"/api/plans/999/{call}", json={}), 404)


def test_plans_are_listed_by_analysis_and_deleted(site: Site, analysis: dict[str, Any]):
    plans = [make(site, analysis) for _ in range(3)]
    query = {"analysis_id": analysis["id"]}
    listed = site.http.get("/api/plans", params=query).json()["items"]
    assert [item["id"] for item in listed] == [plan["id"] for plan in reversed(plans)]
    assert site.http.get("/api/plans", params={"analysis_id": 99}).json()["items"] == []
    assert site.http.delete(f"/api/plans/{plans[0]['id']}").status_code == 204
    problem(site.http.get(f"/api/plans/{plans[0]['id']}"), 404)
    refused = problem(site.http.delete(f"/api/analyses/{analysis['id']}"), 409)
    assert str(plans[1]["id"]) in refused["detail"]


def test_checkpoint_formats_are_named(site: Site, analysis: dict[str, Any]):
    plan = make(site, analysis)
    for name in ("pt2", "onnx", "zip", "../x"):
        answer = site.http.get(f"/api/plans/{plan['id']}/checkpoint", params={"format": name})
        assert "safetensors, pth, masks, recipe" in problem(answer, 422)["detail"]
    problem(site.http.get("/api/plans/999/checkpoint?format=pth"), 404)


EXPERIMENT = {"schedule": "one-shot", "epochs": 3}


def test_an_experiment_has_sensible_defaults(site: Site, analysis: dict[str, Any]):
    plan = make(site, analysis)
    answer = site.http.post("/api/experiments", json={"plan_id": plan["id"], "epochs": 3})
    assert answer.status_code == 202
    made = answer.json()
    assert made["status"] == "queued"
    assert made["runs"] == []
    assert made["settings"] == {
        "schedule": "one-shot",
        "epochs": 3,
        "batch_size": 64,
        "learning_rate": None,
        "distillation": False,
        "baselines": ["uniform", "global-magnitude", "random"],
        "seed": 0,
    }
    assert (made["plan_id"], made["analysis_id"]) == (plan["id"], analysis["id"])
    lease = take_job(site, "retrain")
    assert lease.payload == {"experiment_id": made["id"]}
    finish_job(site, lease)
    assert site.http.get(f"/api/experiments/{made['id']}").json()["status"] == "done"
    unknown = site.http.get(f"/api/experiments/{made['id']}/checkpoint?run=plan&format=pth")
    assert "plan" in problem(unknown, 404)["detail"]
    refused = problem(site.http.delete(f"/api/plans/{plan['id']}"), 409)
    assert f"experiment {made['id']}" in refused["detail"]
    assert site.http.delete(f"/api/experiments/{made['id']}").status_code == 204


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"schedule": "agp"}, "schedule", "one-shot"),
        ({"schedule": "iterative", "steps": 3}, "schedule", "one-shot"),
        ({"steps": 4}, "schedule", "steps out"),
        ({"distillation": True}, "distillation", "yet"),
        ({"epochs": 0}, "epochs", "at least 1"),
        ({"epochs": 1001}, "epochs", "at most 1000"),
        ({"batch_size": 0}, "batch_size", "at least 1"),
        ({"learning_rate": 0}, "learning_rate", "more than 0"),
        ({"baselines": ["best"]}, "baselines.0", "'uniform', 'global-magnitude' or 'random'"),
    ],
)
def test_an_experiment_that_makes_no_sense_is_refused(
    site: Site, analysis: dict[str, Any], change: dict[str, Any], field: str, words: str
):
    body = {"plan_id": make(site, analysis)["id"]} | EXPERIMENT | change
    document = problem(site.http.post("/api/experiments", json=body), 422)
    assert [error["field"] for error in document["errors"]] == [field]
    assert words in document["detail"]


def test_retraining_needs_samples_to_train_on(site: Site):
    analysis = start_analysis(site, dataset_id=ready_dataset(site, train=0))
    finish_analysis(site)
    plan = make(site, analysis)
    answer = site.http.post("/api/experiments", json={"plan_id": plan["id"], "epochs": 1})
    document = problem(answer, 422)
    assert "train split" in document["detail"]
    assert "x_train" in document["hint"]
    problem(site.http.post("/api/experiments", json={"plan_id": 99, "epochs": 1}), 404)
