"""A running experiment: its runs, epoch by epoch, its figures and its events."""

from __future__ import annotations

from typing import Any

from app.store import events, experiments, queue
from app.store.tables import Experiment, Run
from tests.contract.site import Site, finish_analysis, start_analysis, take_job

FIGURES = {
    "accuracy": 0.9, "low": 0.88, "high": 0.92, "loss": float("inf"), "samples": 500,
    "parameters": 100, "macs": 200, "bytes": 300, "latency_ms": 1.5, "split": "test",
    "sparsity": 0.5,
}  # fmt: skip


def started(site: Site) -> tuple[int, Any]:
    analysis = start_analysis(site, sparsities=[0.5])
    finish_analysis(site)
    plan = site.http.post(
        "/api/plans", json={"analysis_id": analysis["id"], "sparsities": {"head.weight": 0.5}}
    ).json()
    body = {"plan_id": plan["id"], "epochs": 2, "baselines": ["uniform"]}
    made = site.http.post("/api/experiments", json=body).json()
    return made["id"], take_job(site, "retrain")


def epoch(number: int, **figures: Any) -> dict[str, Any]:
    return {
        "step": 1, "epoch": number, "sparsity": 0.5, "train_loss": 0.3, "tune_accuracy": 0.91,
        "tune_loss": 0.2, "tune_samples": 1000, "low": 0.89, "high": 0.93, "learning_rate": 0.01,
    } | figures  # fmt: skip


def test_runs_grow_epoch_by_epoch(site: Site):
    experiment_id, lease = started(site)
    with queue.fenced(site.store, lease) as session:
        uniform = experiments.ensure_run(session, experiment_id, "uniform", 1)
        plan = experiments.ensure_run(session, experiment_id, "plan", 0)
        experiments.put_epoch(session, plan.id, epoch(1))
        experiments.put_epoch(session, plan.id, epoch(0, train_loss=None))
        experiments.put_epoch(session, uniform.id, epoch(0, tune_loss=float("nan")))
        session.get_one(Experiment, experiment_id).baseline = FIGURES | {"accuracy": 0.97}
        events.publish(session, lease.topic, "epoch", {"run": "plan", "epoch": 1})
    shown = site.http.get(f"/api/experiments/{experiment_id}").json()
    assert shown["status"] == "running"
    assert [run["name"] for run in shown["runs"]] == ["plan", "uniform"]
    plan_run, uniform_run = shown["runs"]
    assert [row["epoch"] for row in plan_run["trajectory"]] == [0, 1]
    assert plan_run["trajectory"][0]["train_loss"] is None
    assert set(plan_run["trajectory"][1]) >= {
        "step", "epoch", "sparsity", "train_loss", "tune_accuracy", "tune_loss", "learning_rate",
    }  # fmt: skip
    assert uniform_run["trajectory"][0]["tune_loss"] is None, "JSON has no NaN"
    assert plan_run["after"] is None
    assert shown["baseline"]["accuracy"] == 0.97
    assert shown["event_id"] == 3

    with queue.fenced(site.store, lease) as session:
        row = session.get_one(Run, plan.id)
        row.before, row.after, row.best_epoch = FIGURES, FIGURES, 1
        queue.finish(session, lease)
    shown = site.http.get(f"/api/experiments/{experiment_id}").json()
    assert shown["status"] == "done"
    assert shown["runs"][0]["best_epoch"] == 1
    after = shown["runs"][0]["after"]
    assert after["latency_ms"] == 1.5
    assert after["loss"] is None, "JSON has no infinity"
    unfinished = site.http.get(f"/api/experiments/{experiment_id}/checkpoint?run=uniform")
    assert unfinished.status_code == 409
    listed = site.http.get("/api/experiments").json()["items"]
    assert [item["id"] for item in listed] == [experiment_id]
    assert "runs" not in listed[0]


def test_jobs_of_every_kind_say_what_they_work_on(site: Site):
    _, lease = started(site)
    jobs = {job["kind"]: job for job in site.http.get("/api/jobs").json()["items"]}
    assert jobs["retrain"]["label"] == "net.pt2 · digits.npz"
    assert jobs["analyse"]["label"] == "net.pt2 · digits.npz"
    assert jobs["import-model"]["label"] == "net.pt2"
    assert jobs["import-dataset"]["label"] == "digits.npz"
    running = site.http.get("/api/jobs", params={"state": "running"}).json()["items"]
    assert [job["id"] for job in running] == [lease.job_id]
    assert running[0]["attempt"] == 1
    assert running[0]["started_at"].endswith("Z")
    health = site.anonymous.get("/healthz").json()
    assert health == {
        "status": "ok", "database": "ok", "workers": health["workers"],
        "isolation": {"unknown": health["workers"]}, "queue": {"queued": 0, "running": 1},
    }  # fmt: skip
    assert health["workers"] > 0
    asked = site.http.post(f"/api/jobs/{lease.job_id}/cancel")
    assert asked.status_code == 202
    assert asked.json()["state"] == "running"
    assert asked.json()["cancel_requested"] is True
    problem = site.http.get("/api/jobs", params={"state": "sleeping"})
    assert problem.status_code == 422
