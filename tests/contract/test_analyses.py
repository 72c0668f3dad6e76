"""Analyses: what may be asked for, and how the points come back."""

from __future__ import annotations

import csv
import io
import time
from typing import Any

import pytest

from app.store import queue
from tests.contract.site import (
    SAMPLES,
    Site,
    correct_at,
    finish_analysis,
    problem,
    ready_dataset,
    ready_model,
    start_analysis,
    take_job,
    unit,
    until,
    write_baseline,
    write_points,
)

CONTRACT_POINT = {
    "sparsity", "achieved", "accuracy", "loss", "low", "high", "samples", "flips",
}  # fmt: skip


def test_only_the_two_ids_are_required(site: Site):
    made = start_analysis(site)
    assert made["status"] == "queued"
    assert made["error"] is None
    assert made["progress"] == {"done": 0, "total": 0, "eta": None, "samples": 0}
    assert made["baseline"] is None
    assert made["granularity"] == "weight"
    assert made["criteria"] == ["magnitude"]
    assert made["sparsities"] == [round(0.05 * i, 2) for i in range(1, 20)]
    assert made["evaluation"] == {
        "mode": "adaptive", "half_width": 0.01, "relative": 0.1, "confidence": 0.95,
        "tolerance": 0.01, "method": "looks", "precision": "float32", "refine": 0,
    }  # fmt: skip
    assert made["cells"] == {"total": 3 * 19, "known": 0, "done": 0, "settled": 0}
    assert (made["goals"], made["remarks"]) == ([], [])
    assert (made["priority"], made["paused"]) == ("normal", False)
    assert made["seed"] == 0
    assert made["model_name"] == "net.pt2"
    assert made["dataset_name"] == "digits.npz"
    assert made["event_id"] >= 1
    assert [unit["id"] for unit in made["units"]][-1] == "conv.bias"
    assert [curve["unit"] for curve in made["curves"]] == [
        "conv.weight", "hidden.weight", "head.weight",
    ]  # fmt: skip
    assert all(curve["points"] == [] for curve in made["curves"])
    assert site.http.get(f"/api/analyses/{made['id']}").json() == made
    lease = take_job(site, "analyse")
    assert lease.payload == {"analysis_id": made["id"]}
    assert lease.job_id == made["job_id"]


def test_points_appear_as_they_are_measured(site: Site):
    made = start_analysis(site, sparsities=[0.9, 0.5, 0.1 + 0.2, 0.3])
    assert made["sparsities"] == [0.3, 0.5, 0.9]
    lease = take_job(site, "analyse")
    assert site.http.get(f"/api/analyses/{made['id']}").json()["status"] == "running"
    write_baseline(site, lease, "c")
    write_points(site, lease, "c", [("head.weight", 500_000, 320), ("conv.weight", 900_000, 72)])
    with queue.fenced(site.store, lease) as session:
        queue.progress(session, lease, 2, 9, 4.5)
    now = site.http.get(f"/api/analyses/{made['id']}").json()
    assert now["baseline"]["accuracy"] == 0.95
    assert now["baseline"]["low"] < 0.95 < now["baseline"]["high"]
    assert now["progress"] == {"done": 2, "total": 9, "eta": 4.5, "samples": 0}
    assert now["cells"] == {"total": 9, "known": 0, "done": 2, "settled": 2}
    curves = {curve["unit"]: curve["points"] for curve in now["curves"]}
    assert curves["hidden.weight"] == []
    (point,) = curves["head.weight"]
    assert set(point) >= CONTRACT_POINT
    assert point["sparsity"] == 0.5
    assert point["achieved"] == 160 / 320
    assert point["accuracy"] == correct_at("head.weight", 500_000) / SAMPLES
    assert point["samples"] == SAMPLES
    (conv,) = curves["conv.weight"]
    assert conv["achieved"] == 65 / 72, "what was really removed, not what was asked"
    write_points(site, lease, "c", [("head.weight", 300_000, 320), ("head.weight", 900_000, 320)])
    later = site.http.get(f"/api/analyses/{made['id']}").json()
    head = next(curve for curve in later["curves"] if curve["unit"] == "head.weight")
    assert [point["sparsity"] for point in head["points"]] == [0.3, 0.5, 0.9]
    assert later["event_id"] > now["event_id"] > made["event_id"]


def test_a_second_analysis_shows_only_its_own_grid_and_counts_what_was_known(site: Site):
    first = start_analysis(site, sparsities=[0.2, 0.4, 0.6])
    finish_analysis(site)
    ids = {"model_id": first["model_id"], "dataset_id": first["dataset_id"]}
    second = start_analysis(site, sparsities=[0.4, 0.8], units=["head.weight"], **ids)
    shown = site.http.get(f"/api/analyses/{second['id']}").json()
    assert shown["known"] == 1
    assert shown["cells"] == {"total": 2, "known": 1, "done": 1, "settled": 1}
    assert second["curves"] == shown["curves"], "it is there before any worker has looked"
    (curve,) = shown["curves"]
    assert curve["unit"] == "head.weight"
    assert [point["sparsity"] for point in curve["points"]] == [0.4]
    assert site.http.get(f"/api/analyses/{first['id']}").json()["known"] == 0


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"granularity": "channel"}, "granularity", "weight"),
        ({"granularity": "row"}, "granularity", "'weight' or 'channel'"),
        ({"criteria": ["luck"]}, "criteria", "magnitude"),
        ({"criteria": []}, "criteria", "at least 1"),
        ({"evaluation": {"mode": "guess"}}, "evaluation.mode", "'adaptive', 'exact' or 'knee'"),
        ({"evaluation": {"half_width": 0}}, "evaluation.half_width", "more than 0"),
        ({"evaluation": {"half_width": 1}}, "evaluation.half_width", "less than 1"),
        ({"evaluation": {"relative": -0.1}}, "evaluation.relative", "at least 0"),
        ({"evaluation": {"confidence": 0.5}}, "evaluation.confidence", "more than 0.5"),
        ({"evaluation": {"tolerance": 2}}, "evaluation.tolerance", "at most 1"),
        ({"evaluation": {"method": "luck"}}, "evaluation.method", "'looks' or 'sequence'"),
        ({"evaluation": {"precision": "int8"}}, "evaluation.precision", "'bfloat16'"),
        ({"evaluation": {"refine": 21}}, "evaluation.refine", "at most 20"),
        ({"evaluation": {"patience": 3}}, "evaluation.patience", "no such field"),
        ({"recalibrate_batch_norm": 1}, "recalibrate_batch_norm", "true or false"),
        ({"priority": "urgent"}, "priority", "'low', 'normal' or 'high'"),
        ({"sparsities": [0.5, 1.5]}, "sparsities.1", "at most 1"),
        ({"sparsities": [-0.1]}, "sparsities.0", "at least 0"),
        ({"sparsities": ["0.5"]}, "sparsities.0", "a number"),
        ({"sparsities": [True]}, "sparsities.0", "a number"),
        ({"sparsities": []}, "sparsities", "at least 1"),
        ({"sparsities": [i / 201 for i in range(201)]}, "sparsities", "at most 200"),
        ({"units": ["haed.weight"]}, "units", "Did you mean head.weight"),
        ({"units": ["zzzzzz"]}, "units", "conv.weight, hidden.weight, head.weight"),
        ({"units": ["conv.bias"]}, "units", "one dimension"),
        ({"seed": 1.5}, "seed", "whole number"),
        ({"colour": 1}, "colour", "no such field"),
        ({"model_id": "1"}, "model_id", "whole number"),
        ({"model_id": None}, "model_id", "whole number"),
    ],
)
def test_what_makes_no_sense_is_named(site: Site, change: dict[str, Any], field: str, words: str):
    body = {"model_id": ready_model(site), "dataset_id": ready_dataset(site)} | change
    document = problem(site.http.post("/api/analyses", json=body), 422)
    assert [error["field"] for error in document["errors"]] == [field]
    assert words in document["detail"]
    assert site.http.get("/api/analyses").json()["items"] == []


def test_the_model_and_the_data_set_have_to_be_there_and_ready(site: Site):
    body = {"model_id": 1, "dataset_id": 1}
    assert "no model 1" in problem(site.http.post("/api/analyses", json=body), 404)["detail"]
    site.upload("models")
    assert "no data set 1" in problem(site.http.post("/api/analyses", json=body), 404)["detail"]
    site.upload("datasets")
    waiting = problem(site.http.post("/api/analyses", json=body), 409)
    assert "still being imported" in waiting["detail"]
    lease = take_job(site, "import-model")
    with queue.fenced(site.store, lease) as session:
        queue.fail(session, lease, {"code": "x", "message": "It is a pickle.", "hint": ""})
    failed = problem(site.http.post("/api/analyses", json=body), 422)
    assert "It is a pickle." in failed["detail"]
    assert failed["errors"][0]["field"] == "model_id"


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"", "application/json", "needs a JSON body"),
        (b"{", "application/json", "not valid JSON"),
        (b"[]", "application/json", "JSON object"),
        (b"null", "application/json", "JSON"),
        (b'{"model_id": 1, "dataset_id": 1}', "text/plain", "Content-Type: application/json"),
        (b'{"model_id": 1}', "application/json", "dataset_id: This field is required."),
        (b'{"model_id": 1, "dataset_id": NaN}', "application/json", "whole number"),
        (b"\xff\xfe", "application/json", ""),
    ],
)
def test_bodies_that_are_none(site: Site, content: bytes, kind: str, words: str):
    answer = site.http.post("/api/analyses", content=content, headers={"Content-Type": kind})
    document = problem(answer, answer.status_code)
    assert answer.status_code in (400, 422)
    assert words in document["detail"]


def test_the_csv_has_one_row_a_point(site: Site):
    strange = [unit("=cmd()|a,b", (4, 5), 20), unit('quo"te', (2, 5), 10)]
    made = start_analysis(site, model_id=ready_model(site, strange), sparsities=[0.25, 0.5])
    finish_analysis(site)
    answer = site.http.get(f"/api/analyses/{made['id']}/curves.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == (
        f'attachment; filename="net-analysis-{made["id"]}-curves.csv"'
    )
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert list(rows[0]) == [
        "parameter", "sparsity", "top1", "top5", "loss", "criterion", "achieved", "samples", "of",
        "low", "high", "drop", "drop_low", "drop_high", "kl", "flips", "lost", "gained",
        "unit", "accuracy",
        "top5_low", "top5_high", "macro_f1", "macro_f1_low", "macro_f1_high",
        "auroc", "auroc_low", "auroc_high", "remark",
    ]  # fmt: skip
    assert [row["unit"] for row in rows] == ["'=cmd()|a,b"] * 2 + ['quo"te'] * 2
    shown = site.http.get(f"/api/analyses/{made['id']}").json()
    points = [point for curve in shown["curves"] for point in curve["points"]]
    for row, point in zip(rows, points, strict=True):
        for column in ("sparsity", "loss", "achieved", "samples", "of", "low", "high", "drop",
                       "drop_low", "drop_high", "flips", "lost", "gained", "accuracy"):  # fmt: skip
            assert float(row[column]) == point[column], column
        assert (row["parameter"], row["top1"], row["kl"]) == (row["unit"], row["accuracy"], "")


def test_lists_can_be_narrowed(site: Site):
    first = start_analysis(site)
    finish_analysis(site)
    second = start_analysis(site, dataset_id=first["dataset_id"])
    every = site.http.get("/api/analyses").json()["items"]
    assert [item["id"] for item in every] == [second["id"], first["id"]]
    assert "curves" not in every[0]
    one = site.http.get("/api/analyses", params={"model_id": first["model_id"]}).json()["items"]
    assert [item["id"] for item in one] == [first["id"]]
    assert one[0]["baseline"]["accuracy"] == 0.95


def test_ten_thousand_points_are_answered_quickly(site: Site):
    units = [unit(f"layer{index}.conv.weight", (10, 10), 100) for index in range(500)]
    made = start_analysis(site, model_id=ready_model(site, units))
    finish_analysis(site)
    taken = []
    for _ in range(7):
        started = time.perf_counter()
        answer = site.http.get(f"/api/analyses/{made['id']}")
        taken.append(time.perf_counter() - started)
    shown = answer.json()
    assert sum(len(curve["points"]) for curve in shown["curves"]) == 500 * 19
    print(f"\n9500 points: best {min(taken) * 1000:.0f} ms, {len(answer.content) >> 10} KiB")
    assert min(taken) < 0.5, "100 ms on a quiet machine; this one may be busy"


def test_a_cancelled_analysis_says_so_and_can_be_retried(site: Site):
    made = start_analysis(site)
    cancelled = site.http.post(f"/api/jobs/{made['job_id']}/cancel")
    assert cancelled.status_code == 202
    assert cancelled.json()["state"] == "cancelled"
    assert site.http.get(f"/api/analyses/{made['id']}").json()["status"] == "cancelled"
    problem(site.http.post(f"/api/jobs/{made['job_id']}/cancel"), 409)
    again = site.http.post(f"/api/jobs/{made['job_id']}/retry")
    assert again.status_code == 202
    finish_analysis(site)
    until(lambda: site.http.get(f"/api/analyses/{made['id']}").json()["status"] == "done")
    assert "done" in problem(site.http.post(f"/api/jobs/{made['job_id']}/cancel"), 409)["detail"]
    problem(site.http.post(f"/api/jobs/{made['job_id']}/retry"), 409)


def test_deleting_an_analysis_takes_its_points(site: Site):
    made = start_analysis(site)
    finish_analysis(site)
    assert site.http.delete(f"/api/analyses/{made['id']}").status_code == 204
    problem(site.http.get(f"/api/analyses/{made['id']}"), 404)
    problem(site.http.get(f"/api/analyses/{made['id']}/curves.csv"), 404)
    problem(site.http.get(f"/api/analyses/{made['id']}/events"), 404)
