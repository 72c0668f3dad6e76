"""Tasks other than one class a sample: the same calls, judged by other metrics."""

from __future__ import annotations

import csv
import io

import pytest

from app.domain.metrics import METRICS, Kind, primary
from app.store import queue
from app.store.experiments import ensure_run, put_epoch
from app.store.tables import Analysis, Baseline, Dataset, Experiment
from tests.contract.kinds import (
    DENSE,
    analysed_kind,
    columns,
    figures,
    finish_kind_measurement,
    harm_at,
)
from tests.contract.site import Site, finish_analysis, start_analysis, take_job


@pytest.mark.parametrize("kind", list(Kind))
def test_an_analysis_says_what_it_is_judged_by(site: Site, kind: Kind):
    shown = site.http.get(f"/api/analyses/{analysed_kind(site, kind)}").json()
    assert shown["task"] == kind.value
    assert shown["metric"] == primary(kind).name
    assert [each["name"] for each in shown["metrics"]] == [m.name for m in METRICS[kind]]
    first = shown["metrics"][0]
    assert first["label"] == primary(kind).label
    assert (first["higher_is_better"], first["fraction"]) == (
        primary(kind).higher_is_better, primary(kind).fraction,
    )  # fmt: skip
    assert shown["baseline"]["metrics"] == figures(kind, 0)
    assert shown["baseline"]["accuracy"] == DENSE[kind].get("accuracy")
    curve = shown["curves"][1]
    for point in curve["points"]:
        level = round(point["sparsity"] * 1e6)
        assert point["metrics"] == figures(kind, harm_at(curve["unit"], level))
        assert point["accuracy"] == point["metrics"].get("accuracy", {}).get("value")
    (listed,) = site.http.get("/api/analyses").json()["items"]
    assert listed == {name: shown[name] for name in listed}


def test_rows_of_earlier_versions_have_the_metrics_they_have(site: Site):
    start_analysis(site)
    shown = site.http.get(f"/api/analyses/{finish_analysis(site)}").json()
    assert (shown["task"], shown["metric"]) == ("single-label", "accuracy")
    baseline = shown["baseline"]
    assert baseline["metrics"] == {
        "accuracy": {"value": 0.95, "low": baseline["low"], "high": baseline["high"]},
        "loss": {"value": 0.2, "low": None, "high": None},
    }
    point = shown["curves"][0]["points"][3]
    assert point["metrics"]["accuracy"]["value"] == point["accuracy"]


@pytest.mark.parametrize(
    ("task", "kind"),
    [("regression", "regression"), ("language-modelling", "language-modelling"),
     ("classification", "single-label")],
)  # fmt: skip
def test_before_the_baseline_the_task_says_what_is_expected(site: Site, task: str, kind: str):
    made = start_analysis(site)
    with site.store.write() as session:
        session.get_one(Dataset, made["dataset_id"]).task = task
    assert site.http.get(f"/api/analyses/{made['id']}").json()["task"] == kind


def test_the_csv_ends_with_the_metrics(site: Site):
    analysis_id = analysed_kind(site, Kind.REGRESSION)
    rows = list(csv.DictReader(io.StringIO(
        site.http.get(f"/api/analyses/{analysis_id}/curves.csv").text
    )))  # fmt: skip
    assert list(rows[0])[:6] == ["parameter", "sparsity", "top1", "top5", "loss", "criterion"]
    assert list(rows[0])[18:] == [
        "unit", "accuracy",
        "mse", "mse_low", "mse_high", "mae", "mae_low", "mae_high", "r2", "r2_low", "r2_high",
        "remark",
    ]  # fmt: skip
    assert len(rows) == 3 * 4
    for row in rows:
        wanted = figures(Kind.REGRESSION, harm_at(row["unit"], round(float(row["sparsity"]) * 1e6)))
        assert row["accuracy"] == row["low"] == row["flips"] == ""
        assert float(row["mse"]) == wanted["mse"]["value"]
        assert float(row["mse_high"]) == wanted["mse"]["high"]
        assert row["r2_low"] == ""
        assert float(row["loss"]) == wanted["loss"]["value"]


def test_errors_are_predicted_by_what_each_layer_adds(site: Site):
    analysis_id = analysed_kind(site, Kind.REGRESSION)
    plan = {"conv.weight": 0.4, "head.weight": 0.6}
    made = site.http.post("/api/plans", json={"analysis_id": analysis_id, "sparsities": plan})
    assert made.status_code == 201, made.text
    predicted = made.json()["predicted"]
    assert (predicted["accuracy"], predicted["low"], predicted["high"]) == (None, None, None)
    assert predicted["metric"] == "mse"
    extra = sum(4 * 0.5 * harm_at(unit, round(s * 1e6)) for unit, s in plan.items())
    error = predicted["metrics"]["mse"]
    assert error["value"] == pytest.approx(0.5 + extra)
    # Two layers whose intervals reach 0.01 to both sides.
    assert error["high"] - error["value"] == pytest.approx(2**0.5 * 0.02 * 0.5)
    assert predicted["metrics"]["r2"]["value"] == pytest.approx(
        0.8 - sum(2 * harm_at(unit, round(s * 1e6)) for unit, s in plan.items())
    )
    site.http.post(f"/api/plans/{made.json()['id']}/measure")
    finish_kind_measurement(site, Kind.REGRESSION)
    (measured,) = site.http.get(f"/api/plans/{made.json()['id']}").json()["measurements"]
    assert measured["accuracy"] is None
    assert measured["metrics"] == figures(Kind.REGRESSION, 0.1)


def test_perplexity_is_predicted_beside_the_accuracy_of_tokens(site: Site):
    analysis_id = analysed_kind(site, Kind.LANGUAGE_MODELLING)
    plan = {"conv.weight": 0.4, "head.weight": 0.6}
    made = site.http.post("/api/plans", json={"analysis_id": analysis_id, "sparsities": plan})
    predicted = made.json()["predicted"]
    assert predicted["metrics"]["perplexity"]["value"] > 20
    kept = 1.0
    for unit, sparsity in plan.items():
        kept *= 1 - harm_at(unit, round(sparsity * 1e6))
    assert predicted["accuracy"] == pytest.approx(0.4 * kept)
    assert predicted["accuracy"] == predicted["metrics"]["accuracy"]["value"]


def test_an_experiment_is_judged_as_its_analysis(site: Site):
    kind = Kind.REGRESSION
    analysis_id = analysed_kind(site, kind)
    body = {"analysis_id": analysis_id, "sparsities": {"head.weight": 0.5}}
    plan_id = site.http.post("/api/plans", json=body).json()["id"]
    made = site.http.post("/api/experiments", json={"plan_id": plan_id, "epochs": 1})
    assert made.status_code == 202, made.text
    lease = take_job(site, "retrain")
    experiment_id = lease.payload["experiment_id"]
    with queue.fenced(site.store, lease) as session:
        session.get_one(Experiment, experiment_id).baseline = {"split": "test"} | columns(kind, 0)
        run = ensure_run(session, experiment_id, "plan", 0)
        run.after = columns(kind, 0.05)
        put_epoch(session, run.id, {
            "step": 0, "epoch": 0, "sparsity": 0.5, "train_loss": None, "tune_accuracy": None,
            "tune_loss": 0.6, "tune_samples": 10, "tune_metrics": figures(kind, 0.05),
            "low": None, "high": None, "learning_rate": None,
        })  # fmt: skip
    shown = site.http.get(f"/api/experiments/{experiment_id}").json()
    assert (shown["task"], shown["metric"]) == ("regression", "mse")
    assert shown["baseline"]["metrics"] == figures(kind, 0)
    assert shown["runs"][0]["after"]["metrics"] == figures(kind, 0.05)
    (epoch,) = shown["runs"][0]["trajectory"]
    assert epoch["tune_accuracy"] is None
    assert epoch["tune_metrics"] == figures(kind, 0.05)


def test_figures_that_are_no_numbers_are_null(site: Site):
    made = start_analysis(site)
    with site.store.write() as session:
        session.get_one(Analysis, made["id"]).context = "odd"
        session.add(Baseline(
            context="odd", kind="regression", samples=5, metrics={
                "mse": {"value": float("inf"), "low": None}, "mae": {"value": "3"}, "r2": None,
            },
        ))  # fmt: skip
    shown = site.http.get(f"/api/analyses/{made['id']}").json()
    nothing = {"value": None, "low": None, "high": None}
    assert shown["baseline"]["metrics"] == {"mse": nothing, "mae": nothing, "r2": nothing}
