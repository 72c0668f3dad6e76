"""What is said about a file when it is uploaded, and what its import found out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.store import datasets, models, workers
from tests.contract.kinds import NASTY, weights_model
from tests.contract.site import Site, problem, ready_dataset, ready_model


def send(site: Site, noun: str, name: str, **data: str) -> Any:
    return site.http.post(f"/api/{noun}", files={"file": (name, b"abc")}, data=data)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "W.PT"])
@pytest.mark.parametrize(
    ("architecture", "args"),
    [("timm:resnet18", ""), ("transformers:bert", '{"num_labels": 3, "deep": {"a": [1, null]}}'),
     ("my-package:nets/small.v2", " {} ")],
)  # fmt: skip
def test_weights_are_taken_with_their_architecture(
    site: Site, name: str, architecture: str, args: str
):
    answer = send(site, "models", name, architecture=architecture, architecture_args=args)
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert made["architecture"] == architecture
    assert made["architecture_args"] == (json.loads(args or "{}") or None)
    assert made["details"] == {
        "kind": "network", "notes": [], "key_prefix": "", "nested_under": "",
        "architecture_args": {}, "weights": [],
    }  # fmt: skip
    with site.store.read() as session:
        row = models.get(session, made["id"])
        assert (row.architecture, row.architecture_args) == (
            architecture, made["architecture_args"],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "fields", "field", "words"),
    [
        ("a.pt2", {"architecture": "timm:resnet18"}, "architecture", "brings its own"),
        ("a.onnx", {"architecture": "timm:resnet18"}, "architecture", ".safetensors"),
        ("a", {"architecture": "timm:resnet18"}, "architecture", ".safetensors"),
        ("a.pth", {"architecture": "resnet18"}, "architecture", "a colon"),
        ("a.pth", {"architecture": "timm: resnet18"}, "architecture", "a colon"),
        ("a.pth", {"architecture": ":resnet18"}, "architecture", "a colon"),
        ("a.pth", {"architecture": "timm:../../x"}, "architecture", "a colon"),
        ("a.pth", {"architecture": f"timm:{NASTY}"}, "architecture", "a colon"),
        ("a.pth", {"architecture": "timm:" + "r" * 300}, "architecture", "a colon"),
        ("a.pth", {"architecture_args": '{"a": 1}'}, "architecture_args", "no architecture"),
        *[
            ("a.pth", {"architecture": "timm:a", "architecture_args": text}, "architecture_args",
             words)
            for text, words in [
                ("{", "not valid JSON"), ("{'a': 1}", "not valid JSON"), ("[1]", "JSON object"),
                ('"a"', "JSON object"), ('{"a": NaN}', "not valid JSON"),
                ('{"a": 1e999}', "not valid JSON"), ("[" * 9000, "not valid JSON"),
                ('{"a": "' + "x" * 16_384 + '"}', "16 KiB"),
                ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
            ]
        ],
    ],
)  # fmt: skip
def test_what_can_not_be_meant_of_a_model_is_refused(
    site: Site, name: str, fields: dict[str, str], field: str, words: str
):
    document = problem(send(site, "models", name, **fields), 422)
    (error,) = document["errors"]
    assert error["field"] == field
    assert words in document["detail"]
    assert site.http.get("/api/models").json()["items"] == []
    assert [p for p in (site.settings.data_dir / "blobs").rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("task", ["classification", "regression", "language-modelling"])
@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a.zip", "a.csv", "a.parquet"])
def test_data_is_taken_with_its_task_and_options(site: Site, task: str, name: str):
    options = {"target": "price", "ignore": [NASTY], "size": [32, 48]}
    answer = send(site, "datasets", name, task=task, options=json.dumps(options))
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert (made["task"], made["options"]) == (task, options)
    assert made["format"] == name.partition(".")[2]
    with site.store.read() as session:
        assert datasets.get(session, made["id"]).options == options


@pytest.mark.parametrize("text", ["", "{}", "  "])
def test_no_options_are_no_options(site: Site, text: str):
    made = send(site, "datasets", "a.zip", options=text).json()
    assert (made["options"], made["task"]) == ({}, "classification")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"task": "sorting"}, "task"),
        ({"task": "Classification"}, "task"),
        ({"task": NASTY}, "task"),
        ({"options": "target=price"}, "options"),
        ({"options": "[]"}, "options"),
        ({"options": '{"mean": [NaN]}'}, "options"),
        ({"options": '{"a": "' + "x" * 20_000 + '"}'}, "options"),
    ],
)
def test_what_can_not_be_meant_of_data_is_refused(site: Site, fields: dict[str, str], field: str):
    document = problem(send(site, "datasets", "a.csv", **fields), 422)
    assert [error["field"] for error in document["errors"]] == [field]
    assert site.http.get("/api/datasets").json()["items"] == []


def test_a_look_at_weights_and_no_analysis_of_them(site: Site):
    model_id = weights_model(site)
    shown = site.http.get(f"/api/models/{model_id}").json()
    assert (shown["status"], shown["kind"]) == ("ready", "weights")
    details = shown["details"]
    assert (details["key_prefix"], details["nested_under"]) == ("module.", "state_dict")
    assert details["notes"] == ["All keys begin with “module.”."]
    assert [row["key"] for row in details["weights"]] == ["stem.weight", "stem.bias", NASTY]
    assert details["weights"][0]["thresholds"]["90"] == 0.17
    (listed,) = site.http.get("/api/models").json()["items"]
    assert listed["kind"] == "weights"
    assert "details" not in listed
    body = {"model_id": model_id, "dataset_id": ready_dataset(site)}
    document = problem(site.http.post("/api/analyses", json=body), 422)
    assert document["errors"][0]["field"] == "model_id"
    assert "architecture" in document["detail"]
    assert "weights only" in document["detail"]


def test_a_network_has_its_notes(site: Site):
    shown = site.http.get(f"/api/models/{ready_model(site)}").json()
    assert (shown["kind"], shown["details"]["weights"]) == ("network", [])


def test_workers_say_which_walls_they_have(site: Site):
    with site.store.write() as session:
        workers.register(session, pid=1, host="a", isolation="bubblewrap")
        workers.register(session, pid=2, host="b", isolation="bubblewrap")
        workers.register(session, pid=3, host="c", isolation="rlimits")
        workers.register(session, pid=4, host="d")
    health = site.anonymous.get("/healthz").json()
    assert health["isolation"] == {"bubblewrap": 2, "rlimits": 1, "unknown": 1}


def test_the_forms_are_described(site: Site):
    document = site.http.get("/openapi.json").json()
    for noun, names in (
        ("models", {"file", "name", "architecture", "architecture_args"}),
        ("datasets", {"file", "name", "task", "options"}),
    ):
        form = document["paths"][f"/api/{noun}"]["post"]["requestBody"]["content"]
        assert set(form["multipart/form-data"]["schema"]["properties"]) == names
    model = document["components"]["schemas"]["Analysis"]["properties"]
    assert {"task", "metric", "metrics"} <= set(model)
