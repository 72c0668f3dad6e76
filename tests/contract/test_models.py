"""Models and data sets after their upload: read, list, download, delete."""

from __future__ import annotations

import pytest

from app.store import queue
from tests.contract.site import Site, problem, ready_dataset, ready_model, start_analysis, take_job


def test_a_ready_model_has_its_layers_and_units(site: Site):
    model_id = ready_model(site)
    model = site.http.get(f"/api/models/{model_id}").json()
    assert model["status"] == "ready"
    assert model["error"] is None
    assert model["parameters"] == 72 + 4096 + 320 + 8
    assert model["layers"] == [
        {"path": "conv", "type": "Conv2d", "parameters": 80, "macs": 4608,
         "output_shape": [None, 8, 8, 8]}
    ]  # fmt: skip
    units = model["units"]["weight"]
    assert [unit["id"] for unit in units] == [
        "conv.weight", "hidden.weight", "head.weight", "conv.bias",
    ]  # fmt: skip
    assert {"id", "size", "members", "prunable", "reason"} <= set(units[0])
    assert units[3]["prunable"] is False
    assert units[3]["reason"]
    assert model["units"]["channel"] == []


def test_a_ready_data_set_has_its_splits(site: Site):
    dataset = site.http.get(f"/api/datasets/{ready_dataset(site)}").json()
    assert dataset["splits"] == {"train": 600, "tune": 1000, "test": 500}
    assert dataset["task"] == "classification"
    assert dataset["input_shape"] == [1, 8, 8]
    assert dataset["classes"] == 10


def test_a_failed_import_shows_its_reason(site: Site):
    model_id = site.upload("models")["id"]
    lease = take_job(site, "import-model")
    with queue.fenced(site.store, lease) as session:
        error = {"code": "unsafe-file", "message": "It is a pickle.", "hint": "Export it."}
        queue.fail(session, lease, error)
    model = site.http.get(f"/api/models/{model_id}").json()
    assert model["status"] == "failed"
    assert model["error"] == error
    retried = site.http.post(f"/api/jobs/{model['job_id']}/retry")
    assert retried.status_code == 202
    assert site.http.get(f"/api/models/{model_id}").json()["status"] == "importing"


@pytest.mark.parametrize(
    ("name", "plain", "encoded"),
    [
        ("net.pt2", 'filename="net.pt2"', None),
        ('a"b;c.pt2', 'filename="a_b;c.pt2"', None),
        ("ö€.pt2", 'filename="__.pt2"', "filename*=UTF-8''%C3%B6%E2%82%AC.pt2"),
        ("no ending", 'filename="no ending.pt2"', None),
    ],
)  # fmt: skip
def test_the_original_comes_back_unchanged(site: Site, name: str, plain: str, encoded: str | None):
    content = bytes(range(256)) * 5000
    answer = site.http.post("/api/models", files={"file": ("x.pt2", content)}, data={"name": name})
    address = f"/api/models/{answer.json()['id']}/file"
    got = site.http.get(address)
    assert got.content == content
    assert got.headers["content-length"] == str(len(content))
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["etag"] == f'"{answer.json()["sha256"]}"'
    kind, *names = got.headers["content-disposition"].split("; ", 1)
    assert kind == "attachment"
    assert names == [f"{plain}; {encoded}" if encoded else plain]
    again = site.http.get(address, headers={"If-None-Match": got.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    piece = site.http.get(address, headers={"Range": "bytes=5-9"})
    assert piece.status_code == 206
    assert piece.content == content[5:10]


def test_lists_are_newest_first_and_whole_in_pages(site: Site):
    made = [site.upload("models", str(index).encode())["id"] for index in range(5)]
    assert made == sorted(made)
    seen: list[int] = []
    cursor = None
    pages = 0
    while True:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = site.http.get("/api/models", params=query).json()
        seen += [item["id"] for item in page["items"]]
        pages += 1
        if pages == 1:
            site.upload("models", b"came in between")
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]
    assert pages == 3
    assert "layers" not in page["items"][0]


@pytest.mark.parametrize("query", ["limit=0", "limit=100000", "limit=x", "cursor=x", "cursor=²"])
def test_wrong_pages_are_refused(site: Site, query: str):
    document = problem(site.http.get(f"/api/models?{query}"), 422)
    assert document["errors"][0]["field"] == query.partition("=")[0]


def test_deleting_names_what_depends_on_it(site: Site):
    analysis = start_analysis(site)
    for noun, item in (("models", analysis["model_id"]), ("datasets", analysis["dataset_id"])):
        refused = problem(site.http.delete(f"/api/{noun}/{item}"), 409)
        assert f"analysis {analysis['id']}" in refused["detail"]
        assert "cascade=true" in refused["detail"]
    gone = site.http.delete(f"/api/models/{analysis['model_id']}?cascade=true")
    assert gone.status_code == 204
    assert gone.content == b""
    problem(site.http.get(f"/api/models/{analysis['model_id']}"), 404)
    problem(site.http.get(f"/api/analyses/{analysis['id']}"), 404)
    assert site.http.get(f"/api/datasets/{analysis['dataset_id']}").status_code == 200
    assert site.http.delete(f"/api/datasets/{analysis['dataset_id']}").status_code == 204
    files = [p for p in (site.settings.data_dir / "blobs").rglob("*") if p.is_file()]
    assert files == []


@pytest.mark.parametrize("noun", ["models", "datasets", "analyses", "plans", "experiments", "jobs"])
@pytest.mark.parametrize("item", ["7", "0", "-1", "x", "1.5", str(2**63), "9" * 40])
def test_what_is_not_there_is_a_404(site: Site, noun: str, item: str):
    assert problem(site.http.get(f"/api/{noun}/{item}"), 404)["code"] == "not-found"
    if noun != "jobs":
        problem(site.http.delete(f"/api/{noun}/{item}"), 404)
