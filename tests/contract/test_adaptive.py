"""Points that become sharper: how they are shown, asked for again, compared and explained."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest

from app.domain.comparison import mid_p
from app.domain.statistics import normal_quantile
from app.store import queue
from app.store.tables import Dataset
from tests.contract.partial import stream, write_dense, write_part
from tests.contract.site import (
    SAMPLES,
    Site,
    context_of,
    finish_job,
    problem,
    ready_dataset,
    ready_model,
    start_analysis,
    take_job,
    write_points,
)

UNIT = "head.weight"


def spoilt(share: float, samples: int, seed: int = 1) -> np.ndarray:
    """Answers of a network that lost a share of what the dense one gets right."""
    right = (stream() != 0)[:samples]
    return right & (np.random.default_rng(seed).random(samples) >= share)


def shown(site: Site, analysis_id: int, unit: str = UNIT, criterion: str = "magnitude") -> Any:
    view = site.http.get(f"/api/analyses/{analysis_id}").json()
    for curve in view["curves"]:
        if (curve["unit"], curve["criterion"]) == (unit, criterion):
            return curve
    raise AssertionError


def test_a_point_of_a_part_is_an_estimate_and_gives_way_to_more(site: Site):
    made = start_analysis(site, sparsities=[0.5])
    lease = take_job(site, "analyse")
    write_dense(site, lease)
    write_part(site, lease, UNIT, 0.5, spoilt(0.3, 32))
    (point,) = shown(site, made["id"])["points"]
    assert (point["samples"], point["of"], point["whole"]) == (32, SAMPLES, False)
    assert (point["interval"], point["preview"], point["settled"]) == ("split", True, False)
    own = write_part(site, lease, UNIT, 0.5, spoilt(0.3, 640))
    (point,) = shown(site, made["id"])["points"]
    assert (point["samples"], point["preview"]) == (640, False)
    assert point["drop"] == own["drop"]
    assert point["drop_low"] < point["drop"] < point["drop_high"]
    assert point["accuracy"] == pytest.approx(0.95 - point["drop"])
    assert point["low"] == pytest.approx(0.95 - point["drop_high"])
    assert point["settled"] == ((point["drop_high"] - point["drop_low"]) / 2 <= 0.1 * point["drop"])
    write_part(site, lease, UNIT, 0.5, spoilt(0.9, 320))
    assert shown(site, made["id"])["points"] == [point], "fewer samples never replace more"
    context = context_of(site, lease)
    write_points(site, lease, context, [(UNIT, 500_000, 320)])
    (point,) = shown(site, made["id"])["points"]
    assert (point["samples"], point["whole"], point["settled"]) == (SAMPLES, True, True)
    assert point["interval"] == "population"
    assert point["drop"] == pytest.approx(0.95 - point["accuracy"])


def test_an_event_carries_what_the_api_shows(site: Site):
    made = start_analysis(site, sparsities=[0.5])
    lease = take_job(site, "analyse")
    write_dense(site, lease)
    write_part(site, lease, UNIT, 0.5, spoilt(0.3, 128), remark="NaN in its activations.")
    (point,) = shown(site, made["id"])["points"]
    assert point["remark"] == "NaN in its activations."
    with site.http.stream("GET", f"/api/analyses/{made['id']}/events?after=2") as answer:
        text = ""
        for part in answer.iter_text():
            text += part
            if "event: points" in text and text.endswith("\n\n"):
                break
    import json

    data = next(line[6:] for line in text.splitlines() if line.startswith('data: {"points"'))
    (told,) = json.loads(data)["points"]
    assert told == {"unit": UNIT, "criterion": "magnitude", **point}


def test_intervals_are_read_at_the_confidence_that_is_asked(site: Site):
    first = start_analysis(site, sparsities=[0.5])
    lease = take_job(site, "analyse")
    write_dense(site, lease)
    write_part(site, lease, UNIT, 0.5, spoilt(0.3, 640))
    write_points(site, lease, context_of(site, lease), [("conv.weight", 500_000, 72)])
    ids = {"model_id": first["model_id"], "dataset_id": first["dataset_id"]}
    second = start_analysis(site, sparsities=[0.5], evaluation={"confidence": 0.99}, **ids)
    (one,) = shown(site, first["id"])["points"]
    (other,) = shown(site, second["id"])["points"]
    assert other["drop"] == one["drop"]
    assert other["drop_high"] - other["drop_low"] > 1.1 * (one["drop_high"] - one["drop_low"])
    (one,) = shown(site, first["id"], "conv.weight")["points"]
    (other,) = shown(site, second["id"], "conv.weight")["points"]
    ratio = normal_quantile(0.99) / normal_quantile(0.95)
    widths = [each["drop_high"] - each["drop_low"] for each in (one, other)]
    assert widths[1] / widths[0] == pytest.approx(ratio)
    assert other["low"] < one["low"] < one["high"] < other["high"]


def test_a_known_point_counts_only_where_it_is_sharp_enough(site: Site):
    first = start_analysis(site, sparsities=[0.5], units=[UNIT])
    lease = take_job(site, "analyse")
    write_dense(site, lease)
    write_part(site, lease, UNIT, 0.5, spoilt(0.2, 640))
    (point,) = shown(site, first["id"])["points"]
    half = (point["drop_high"] - point["drop_low"]) / 2
    ids = {"model_id": first["model_id"], "dataset_id": first["dataset_id"], "units": [UNIT]}

    def cells(**evaluation: Any) -> Any:
        return start_analysis(site, sparsities=[0.5], evaluation=evaluation, **ids)["cells"]

    assert cells(half_width=half * 1.05, relative=0.0)["known"] == 1
    assert cells(half_width=half * 0.95, relative=0.0)["known"] == 0
    assert cells(mode="exact")["known"] == 0
    assert cells(mode="knee", half_width=0.001, relative=0.0, tolerance=0.05)["known"] == 1
    assert cells(mode="knee", half_width=0.001, relative=0.0, tolerance=point["drop"])["known"] == 0
    assert cells(half_width=0.9, precision="bfloat16")["known"] == 0, "another arithmetic"
    assert cells(half_width=0.9) == {"total": 1, "known": 1, "done": 1, "settled": 1}


def test_other_settings_are_other_facts(site: Site):
    first = start_analysis(site, sparsities=[0.5], units=[UNIT])
    lease = take_job(site, "analyse")
    write_dense(site, lease)
    write_points(site, lease, context_of(site, lease), [(UNIT, 500_000, 320)])
    ids = {"model_id": first["model_id"], "dataset_id": first["dataset_id"], "units": [UNIT]}
    for change, known in (
        ({}, 1),
        ({"evaluation": {"mode": "exact"}}, 1),
        ({"evaluation": {"mode": "knee", "tolerance": 0.2}}, 1),
        ({"priority": "high"}, 1),
        ({"seed": 1}, 0),
        ({"recalibrate_batch_norm": True}, 0),
        ({"evaluation": {"precision": "bfloat16"}}, 0),
        ({"evaluation": {"method": "sequence"}}, 0),
    ):
        made = start_analysis(site, sparsities=[0.5], **(ids | change))
        assert made["cells"]["known"] == made["known"] == known, change


def test_curves_say_where_their_knee_is_and_what_fits_them(site: Site):
    made = start_analysis(site, sparsities=[0.1, 0.2, 0.3, 0.4], evaluation={"tolerance": 0.1})
    lease = take_job(site, "analyse")
    write_dense(site, lease)
    assert shown(site, made["id"])["knee"] is None
    assert shown(site, made["id"])["fit"] == []
    for sparsity, share in ((0.1, 0.02), (0.2, 0.0), (0.3, 0.4), (0.4, 0.0)):
        write_part(site, lease, UNIT, sparsity, spoilt(share, 640))
    curve = shown(site, made["id"])
    points = {point["sparsity"]: point for point in curve["points"]}
    assert points[0.4]["drop"] < points[0.1]["drop"], "a curve that falls and rises again"
    knee = points[0.2]
    assert curve["knee"] == {
        "sparsity": 0.2, "drop": knee["drop"], "low": knee["drop_low"], "high": knee["drop_high"],
    }  # fmt: skip
    assert [sparsity for sparsity, _ in curve["fit"]] == [0.1, 0.2, 0.3, 0.4]
    fitted = [drop for _, drop in curve["fit"]]
    assert fitted == sorted(fitted)
    assert fitted[0] == fitted[1] < fitted[2] == fitted[3]


def test_goals_are_added_and_the_job_goes_on(site: Site):
    made = start_analysis(site, sparsities=[0.2, 0.5, 0.8])
    address = f"/api/analyses/{made['id']}/sharpen"
    lease = take_job(site, "analyse")
    write_dense(site, lease)
    for sparsity in (0.2, 0.5, 0.8):
        write_part(site, lease, UNIT, sparsity, spoilt(0.01, 640))
    finish_job(site, lease)
    before = site.http.get(f"/api/analyses/{made['id']}").json()
    assert before["status"] == "done"
    widths = {
        p["sparsity"]: (p["drop_high"] - p["drop_low"]) / 2
        for p in shown(site, made["id"])["points"]
    }
    goal = {"units": [UNIT], "sparsities": [0.3, 0.6], "half_width": 0.0001}
    answer = site.http.post(address, json=goal)
    assert answer.status_code == 202
    after = answer.json()
    assert after["goals"] == [goal | {"exact": False}]
    assert (after["status"], after["job_id"]) == ("queued", made["job_id"])
    settled = {point["sparsity"]: point["settled"] for point in shown(site, made["id"])["points"]}
    assert settled[0.5] is False
    assert settled[0.2] == settled[0.8] == (widths[0.2] <= 0.01)
    lease = take_job(site, "analyse")
    assert lease.payload["analysis_id"] == made["id"]
    everything = site.http.post(address, json={"exact": True}).json()
    assert everything["goals"][1] == {
        "units": None, "sparsities": None, "half_width": None, "exact": True,
    }  # fmt: skip
    assert everything["status"] == "running"
    assert everything["cells"]["settled"] == 0
    finish_job(site, lease)
    assert site.http.get(f"/api/analyses/{made['id']}").json()["status"] == "queued", (
        "what was asked for while it ran is still to be done"
    )


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({}, "half_width", "exact: true"),
        ({"exact": True, "half_width": 0.1}, "half_width", "or exact"),
        ({"exact": False}, "half_width", "how narrow"),
        ({"half_width": 0}, "half_width", "more than 0"),
        ({"half_width": "thin"}, "half_width", "a number"),
        ({"exact": True, "units": []}, "units", "at least 1"),
        ({"exact": True, "units": ["haed.weight"]}, "units", "Did you mean head.weight"),
        ({"exact": True, "units": ["conv.weight"]}, "units", "no curve of the unit"),
        ({"exact": True, "units": ["conv.bias"]}, "units", "one dimension"),
        ({"exact": True, "sparsities": [0.5]}, "sparsities", "at least 2"),
        ({"exact": True, "sparsities": [0.6, 0.5]}, "sparsities", "Swap"),
        ({"exact": True, "sparsities": [0.6, 0.7]}, "sparsities", "no points from 0.6 to 0.7"),
        ({"exact": True, "sparsities": [-1, 0.7]}, "sparsities.0", "at least 0"),
        ({"exact": True, "colour": 1}, "colour", "no such field"),
    ],
)
def test_what_can_not_become_sharper_is_named(
    site: Site, body: dict[str, Any], field: str, words: str
):
    made = start_analysis(site, sparsities=[0.5], units=[UNIT])
    document = problem(site.http.post(f"/api/analyses/{made['id']}/sharpen", json=body), 422)
    assert [error["field"] for error in document["errors"]] == [field]
    assert words in document["detail"]
    assert site.http.get(f"/api/analyses/{made['id']}").json()["goals"] == []


def test_what_is_exact_is_sharp_already(site: Site):
    made = start_analysis(site, evaluation={"mode": "exact"})
    body = {"exact": True}
    refused = problem(site.http.post(f"/api/analyses/{made['id']}/sharpen", json=body), 409)
    assert "every sample already" in refused["detail"]
    problem(site.http.post("/api/analyses/99/sharpen", json=body), 404)


def test_criteria_have_names_and_sources(site: Site):
    items = site.http.get("/api/criteria").json()["items"]
    names = [item["name"] for item in items]
    assert {"magnitude", "random", "wanda", "fisher", "sparsegpt-update"} <= set(names)
    assert all(item["title"] and item["description"] and item["source"] for item in items)
    assert {item["needs"] for item in items} <= {"nothing", "inputs", "gradients", "unknown"}
    problem(site.anonymous.get("/api/criteria"), 401)


def test_what_needs_training_samples_needs_some(site: Site):
    ids = {"model_id": ready_model(site), "dataset_id": ready_dataset(site, train=0)}
    body = ids | {"criteria": ["wanda", "fisher"]}
    refused = problem(site.http.post("/api/analyses", json=body), 422)
    assert refused["errors"][0]["field"] == "criteria"
    assert "train" in refused["detail"]
    made = start_analysis(site, **(ids | {"criteria": ["wanda", "magnitude"]}))
    assert made["criteria"] == ["wanda", "magnitude"]
    body = ids | {"recalibrate_batch_norm": True}
    refused = problem(site.http.post("/api/analyses", json=body), 422)
    assert refused["errors"][0]["field"] == "recalibrate_batch_norm"
    with site.store.write() as session:
        session.get_one(Dataset, ids["dataset_id"]).splits = {"train": 5, "tune": SAMPLES}
    assert start_analysis(site, **body)["recalibrate_batch_norm"] is True


def test_one_point_in_full(site: Site):
    made = start_analysis(site, sparsities=[0.5, 0.6])
    lease = take_job(site, "analyse")
    write_dense(site, lease)
    right = spoilt(0.2, 640)
    write_part(site, lease, UNIT, 0.5, right)
    address = f"/api/analyses/{made['id']}/point"
    found = site.http.get(address, params={"unit": UNIT, "sparsity": 0.5}).json()
    (point,) = shown(site, made["id"])["points"]
    assert found == {
        **point, "unit": UNIT, "criterion": "magnitude",
        "classes": [
            {"class": 0, "name": None, "samples": 600, "dense": None, "pruned": int(right.sum()),
             "dense_samples": 600, "dense_right": 560},
            {"class": 1, "name": None, "samples": 40, "dense": None, "pruned": 0,
             "dense_samples": 400, "dense_right": 390},
        ],
    }  # fmt: skip
    write_part(site, lease, UNIT, 0.5, spoilt(0.2, SAMPLES))
    with site.store.write() as session:
        session.get_one(Dataset, made["dataset_id"]).details = {"class_names": ["cat", "dog"]}
    classes = site.http.get(address, params={"unit": UNIT, "sparsity": 0.5}).json()["classes"]
    assert [(each["name"], each["dense"]) for each in classes] == [("cat", 560), ("dog", 390)]
    for query in (
        {"unit": UNIT, "sparsity": 0.6},
        {"unit": "conv.weight", "sparsity": 0.5},
        {"unit": UNIT, "sparsity": 0.5, "criterion": "random"},
        {"unit": UNIT, "sparsity": 0.55},
    ):
        assert "no point" in problem(site.http.get(address, params=query), 404)["detail"]
    for query in ({"unit": UNIT}, {"sparsity": 0.5}, {"unit": UNIT, "sparsity": 2}):
        problem(site.http.get(address, params=query), 422)
    problem(site.http.get("/api/analyses/99/point", params={"unit": UNIT, "sparsity": 0.5}), 404)


def test_criteria_are_compared_on_the_same_samples(site: Site):
    made = start_analysis(
        site, sparsities=[0.5, 0.6, 0.7], criteria=["magnitude", "lamp", "random"]
    )
    lease = take_job(site, "analyse")
    right = write_dense(site, lease)
    good, bad, worse = spoilt(0.05, SAMPLES), spoilt(0.3, 640, seed=2), spoilt(0.5, SAMPLES, 3)
    write_part(site, lease, UNIT, 0.5, good, criterion="lamp")
    write_part(site, lease, UNIT, 0.5, bad)
    write_part(site, lease, UNIT, 0.5, worse, criterion="random")
    even = right.copy()
    odd = right.copy()
    even[np.flatnonzero(right)[:10:2]] = False
    odd[np.flatnonzero(right)[1:13:2]] = False
    write_part(site, lease, UNIT, 0.6, even)
    write_part(site, lease, UNIT, 0.6, odd, criterion="lamp")
    write_part(site, lease, UNIT, 0.7, even)
    found = site.http.get(f"/api/analyses/{made['id']}/comparison").json()
    clear, close = found["items"]
    assert (clear["unit"], clear["sparsity"]) == (UNIT, 0.5)
    assert (clear["best"], clear["runner_up"]) == ("lamp", "magnitude")
    ahead, behind = (good[:640] & ~bad).sum(), (bad & ~good[:640]).sum()
    assert clear["p"] == mid_p(int(ahead), int(behind))
    assert clear["samples"] == 640
    assert clear["low"] < clear["difference"] < clear["high"]
    assert clear["significant"] is True
    assert (close["best"], close["sparsity"], close["significant"]) == ("magnitude", 0.6, False)
    assert close["difference"] == pytest.approx(0.001)
    assert close["p"] == mid_p(6, 5)
    (unit,) = found["units"]
    assert (unit["unit"], unit["best"], unit["levels"]) == (UNIT, "lamp", 1)
    assert sorted(unit["drops"]) == ["lamp", "magnitude", "random"]
    assert unit["significant"] is True
    alone = start_analysis(site, model_id=made["model_id"], dataset_id=made["dataset_id"])
    nothing = site.http.get(f"/api/analyses/{alone['id']}/comparison").json()
    assert nothing == {"items": [], "units": []}
    problem(site.http.get("/api/analyses/99/comparison"), 404)


def test_what_both_have_seen_decides_who_is_ahead(site: Site):
    """The drop of one is of more samples, among which it lost more than on those of the other."""
    made = start_analysis(site, criteria=["magnitude", "lamp"], sparsities=[0.5])
    lease = take_job(site, "analyse")
    right = write_dense(site, lease)
    whole, part = right[:960].copy(), right[:320].copy()
    whole[np.flatnonzero(whole)[-90:]] = False
    part[np.flatnonzero(part)[:12]] = False
    drops = [
        write_part(site, lease, UNIT, 0.5, bits, criterion=name)["drop"]
        for name, bits in (("magnitude", whole), ("lamp", part))
    ]
    assert drops[0] > drops[1]
    (found,) = site.http.get(f"/api/analyses/{made['id']}/comparison").json()["items"]
    assert (found["best"], found["runner_up"]) == ("magnitude", "lamp")
    assert found["samples"] == 320
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert found["p"] == mid_p(12, 0)


def test_remarks_stand_in_the_place_of_curves(site: Site):
    made = start_analysis(site, sparsities=[0.5, 0.6])
    from app.store.tables import Analysis

    remark = {"unit": UNIT, "criterion": "magnitude", "reason": "Every entry is zero already."}
    with site.store.write() as session:
        session.get_one(Analysis, made["id"]).remarks = [remark]
    view = site.http.get(f"/api/analyses/{made['id']}").json()
    assert view["remarks"] == [remark]
    assert view["cells"]["total"] == 2 * 2
    assert shown(site, made["id"])["remark"] == remark["reason"]


def test_levels_of_a_refinement_are_points_of_the_analysis(site: Site):
    made = start_analysis(site, sparsities=[0.5, 0.6], evaluation={"refine": 2})
    from app.store.tables import Analysis

    lease = take_job(site, "analyse")
    write_dense(site, lease)
    for unit, sparsity in ((UNIT, 0.55), ("conv.weight", 0.55), (UNIT, 0.5)):
        write_part(site, lease, unit, sparsity, spoilt(0.1, 128))
    with site.store.write() as session:
        row = session.get_one(Analysis, made["id"])
        row.extra = [[UNIT, "magnitude", 550_000]]
    assert [point["sparsity"] for point in shown(site, made["id"])["points"]] == [0.5, 0.55]
    assert shown(site, made["id"], "conv.weight")["points"] == [], "nobody refined that one"
    view = site.http.get(f"/api/analyses/{made['id']}").json()
    assert view["cells"]["total"] == 3 * 2 + 1
    table = site.http.get(f"/api/analyses/{made['id']}/curves.csv").text
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [(row["parameter"], row["sparsity"], row["of"]) for row in rows] == [
        (UNIT, "0.5", "1000"), (UNIT, "0.55", "1000"),
    ]  # fmt: skip


def test_a_plan_is_predicted_from_estimates(site: Site):
    made = start_analysis(site, sparsities=[0.5])
    lease = take_job(site, "analyse")
    write_dense(site, lease)
    own = write_part(site, lease, UNIT, 0.5, spoilt(0.2, 640))
    body = {"analysis_id": made["id"], "sparsities": {UNIT: 0.5}}
    predicted = site.http.post("/api/plans", json=body).json()["predicted"]
    assert predicted["accuracy"] == pytest.approx(0.95 - own["drop"])
    assert predicted["low"] == pytest.approx(0.95 - own["drop_high"], abs=1e-9)
    assert predicted["high"] == pytest.approx(0.95 - own["drop_low"], abs=1e-9)


def test_progress_counts_samples(site: Site):
    made = start_analysis(site)
    lease = take_job(site, "analyse")
    with queue.fenced(site.store, lease) as session:
        queue.progress(session, lease, 1, 57, 3.0, 12_800)
    view = site.http.get(f"/api/analyses/{made['id']}").json()
    assert view["progress"] == {"done": 1, "total": 57, "eta": 3.0, "samples": 12_800}
