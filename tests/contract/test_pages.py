"""Pages, static files, the description of the API, and what errors look like to people."""

from __future__ import annotations

import gzip
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from app.web.problems import MEDIA_TYPE
from app.web.templates import json_script
from tests.contract.site import (
    Site,
    finish_analysis,
    finish_measurement,
    problem,
    ready_model,
    start_analysis,
    unit,
)

NASTY = "</script><script>alert(1)</script>\"'&\u2028<!--"


class Page(HTMLParser):
    """What of a page matters to a content security policy, and its state."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.scripts: list[dict[str, str | None]] = []
        self.inline = 0
        self.handlers: list[str] = []
        self.addresses: list[str] = []
        self._data: list[str] | None = None
        self.state: Any = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.handlers += [name for name in given if name.startswith("on")]
        for name in ("src", "href"):
            value = given.get(name)
            if value and value.startswith("/static/"):
                self.addresses.append(value)
        if tag == "script":
            self.scripts.append(given)
            if given.get("type") == "application/json":
                self._data = []
            elif "src" not in given:
                self.inline += 1

    def handle_data(self, data: str) -> None:
        if self._data is not None:
            self._data.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._data is not None:
            self.state = json.loads("".join(self._data))
            self._data = None


@pytest.fixture
def pages(site: Site) -> dict[str, str]:
    """Every page of a server on which something has been done, with hostile names."""
    units = [unit(NASTY, (4, 5), 20), unit("head.weight", (10, 32), 320)]
    model_id = ready_model(site, units, name="net.pt2")
    analysis = start_analysis(site, model_id=model_id, sparsities=[0.5, 0.9])
    finish_analysis(site)
    body = {"analysis_id": analysis["id"], "sparsities": {"head.weight": 0.5}, "name": NASTY}
    plan = site.http.post("/api/plans", json=body).json()
    site.http.post(f"/api/plans/{plan['id']}/measure")
    finish_measurement(site)
    experiment = site.http.post(
        "/api/experiments", json={"plan_id": plan["id"], "epochs": 1}
    ).json()
    return {
        "home": "/",
        "model": f"/models/{model_id}",
        "dataset": f"/datasets/{analysis['dataset_id']}",
        "explore": f"/analyses/{analysis['id']}?plan={plan['id']}&unit=x",
        "experiment": f"/experiments/{experiment['id']}",
        "jobs": "/jobs",
        "docs": "/docs",
        "missing": "/models/999",
    }


def test_pages_run_no_inline_script_and_find_all_their_files(site: Site, pages: dict[str, str]):
    with site.browser() as browser:
        for name, path in pages.items():
            answer = browser.get(path)
            assert answer.status_code == (404 if name == "missing" else 200), name
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            page = Page(answer.text)
            assert page.inline == 0, name
            assert page.handlers == [], name
            assert "alert(1)</script>" not in answer.text
            for address in page.addresses:
                file = browser.get(address)
                assert file.status_code == 200, (name, address)
                assert "immutable" in file.headers["cache-control"], address


def test_pages_start_from_the_same_figures_as_the_api(site: Site, pages: dict[str, str]):
    def state(name: str) -> Any:
        return Page(site.http.get(pages[name], headers={"Accept": "text/html"}).text).state

    explore = state("explore")
    analysis_id = explore["analysis"]["id"]
    assert explore["analysis"] == site.http.get(f"/api/analyses/{analysis_id}").json()
    assert explore["analysis"]["units"][0]["id"] == NASTY
    assert explore["plan"] == explore["plans"][0]
    assert explore["plan"] == site.http.get(f"/api/plans/{explore['plan']['id']}").json()
    assert explore["plan"]["name"] == " ".join(NASTY.replace("\u2028", " ").split())
    facts = explore["facts"]
    assert set(facts) == {
        "total_parameters", "total_macs", "total_bytes", "file_bytes", "units",
    }  # fmt: skip
    assert facts["units"][1] == {
        "id": "head.weight", "size": 320, "rows": 10, "itemsize": 4, "macs": 320,
    }  # fmt: skip
    assert explore["splits"] == {"train": 600, "tune": 1000, "test": 500}

    model = state("model")
    assert model["model"] == site.http.get(f"/api/models/{model['model']['id']}").json()
    (summary,) = model["analyses"]
    assert summary["curves"]["head.weight"] == [
        [point["sparsity"], point["accuracy"]]
        for point in explore["analysis"]["curves"][1]["points"]
    ]
    assert summary["best_plan"]["measured"]["accuracy"] == 0.9
    assert summary["best_plan"]["predicted"] == explore["plan"]["predicted"]

    home = state("home")
    assert [each["id"] for each in home["models"]] == [model["model"]["id"]]
    assert home["models"][0]["analyses"] == [summary]
    assert home["limits"] == {"max_upload_bytes": site.settings.max_upload_bytes}
    assert state("dataset")["dataset"]["classes"] == 10
    assert state("experiment")["plan"] == explore["plan"]
    jobs = state("jobs")
    assert jobs["jobs"] == site.http.get("/api/jobs").json()["items"]
    assert {"id", "pid", "host", "isolation", "started_at", "heartbeat_at"} == set(
        jobs["workers"][0]
    )


@pytest.mark.parametrize("plan", ["99", "x", "-1", "9" * 30, "²"])
def test_a_plan_that_is_not_there_opens_none(site: Site, plan: str):
    made = start_analysis(site)
    answer = site.http.get(
        f"/analyses/{made['id']}", params={"plan": plan}, headers={"Accept": "text/html"}
    )
    assert answer.status_code == 200
    assert Page(answer.text).state["plan"] is None


def test_the_sign_in_page_finds_its_files_without_a_token(site: Site):
    page = Page(site.anonymous.get("/sign-in").text)
    assert page.inline == 0
    assert page.addresses
    waiting, seen = list(page.addresses), set()
    while waiting:
        address = waiting.pop()
        if address in seen:
            continue
        seen.add(address)
        file = site.anonymous.get(address)
        assert file.status_code == 200, address
        folder = address.rpartition("/")[0]
        for module in re.findall(r'from "\./([^"]+)"', file.text):
            waiting.append(f"{folder}/{module}")
    assert len(seen) > len(page.addresses), "a script that imports another one was followed"


def test_problems_are_pages_for_people_and_documents_for_programs(site: Site):
    with site.browser() as browser:
        page = browser.get("/analyses/12")
        assert page.status_code == 404
        assert "There is no analysis 12." in page.text
        assert page.headers["content-type"].startswith("text/html")
        document = problem(browser.get("/api/analyses/12"), 404)
    assert "There is no analysis 12." in document["detail"]
    wrong = site.http.put("/api/models")
    assert problem(wrong, 405)["code"] == "method-not-allowed"
    assert "GET" in wrong.headers["allow"] or "POST" in wrong.headers["allow"]


def test_an_unexpected_error_shows_no_inside(site: Site, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr("app.web.reading.models.list_models", broken)
    answer = site.http.get("/api/models")
    document = problem(answer, 500)
    assert "secret" not in answer.text
    assert document["code"] == "internal"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" in answer.headers
    page = site.http.get("/", headers={"Accept": "text/html"})
    assert page.status_code == 500
    assert "secret" not in page.text
    assert "<html" in page.text


def test_static_files_are_cached_and_compressed(site: Site):
    plain = site.http.get("/static/js/api.js", headers={"Accept-Encoding": "identity"})
    assert plain.headers["content-type"] == "text/javascript; charset=utf-8"
    assert plain.headers["cache-control"] == "no-cache"
    again = site.http.get(
        "/static/js/api.js",
        headers={"If-None-Match": plain.headers["etag"], "Accept-Encoding": "identity"},
    )
    assert again.status_code == 304
    versioned = site.app.state.services.assets.url("js/api.js")
    packed = site.http.get(versioned)
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.text == plain.text
    assert "immutable" in packed.headers["cache-control"]
    stale = re.sub(r"~[0-9a-f]+", "~000000000000", versioned)
    assert site.http.get(stale).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    ["../app.py", "%2e%2e/pyproject.toml", "js/../../pyproject.toml", "js", "", "~x", "~x/../a",
     "js/none.js", "/etc/passwd", "js%00.js"],
)  # fmt: skip
def test_static_gives_out_nothing_else(site: Site, path: str):
    assert site.http.get(f"/static/{path}").status_code == 404


def test_plotly_comes_from_the_installed_package(site: Site):
    address = site.app.state.services.assets.url("plotly.min.js")
    answer = site.http.get(address)
    assert answer.status_code == 200
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "immutable" in answer.headers["cache-control"]
    assert "plotly.js v" in answer.text[:200]
    plain = site.http.get(address, headers={"Accept-Encoding": "identity"})
    assert plain.text == answer.text
    (packed,) = (site.settings.data_dir / "cache").glob("plotly-*.gz")
    assert gzip.decompress(packed.read_bytes()) == plain.content


def test_openapi_describes_every_call(site: Site):
    api = site.http.get("/openapi.json").json()
    described = {(method.upper(), path) for path, calls in api["paths"].items() for method in calls}
    expected = {
        ("GET", "/healthz"),
        ("GET", "/api/jobs"), ("GET", "/api/jobs/{id}"),
        ("POST", "/api/jobs/{id}/cancel"), ("POST", "/api/jobs/{id}/retry"),
        ("POST", "/api/jobs/{id}/pause"), ("POST", "/api/jobs/{id}/resume"),
        ("POST", "/api/jobs/{id}/priority"), ("GET", "/api/criteria"),
        ("POST", "/api/analyses/{id}/sharpen"), ("GET", "/api/analyses/{id}/point"),
        ("GET", "/api/analyses/{id}/comparison"),
        ("GET", "/api/models/{id}/file"),
        ("GET", "/api/analyses/{id}/events"), ("GET", "/api/analyses/{id}/curves.csv"),
        ("POST", "/api/plans/{id}/measure"), ("GET", "/api/plans/{id}/checkpoint"),
        ("GET", "/api/experiments/{id}/events"),
        ("GET", "/api/experiments/{id}/checkpoint"),
    }  # fmt: skip
    for noun in ("models", "datasets", "analyses", "plans", "experiments"):
        expected |= {("GET", f"/api/{noun}"), ("POST", f"/api/{noun}")}
        expected |= {("GET", f"/api/{noun}/{{id}}"), ("DELETE", f"/api/{noun}/{{id}}")}
    assert described == expected
    form = api["paths"]["/api/models"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert form["schema"]["required"] == ["file"]
    text = json.dumps(api)
    assert "HTTPValidationError" not in text
    for reference in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert reference in api["components"]["schemas"]
    for path, calls in api["paths"].items():
        for method, call in calls.items():
            assert any(status.startswith("2") for status in call["responses"]), (method, path)
            if path != "/healthz":
                assert MEDIA_TYPE in call["responses"]["401"]["content"]
    docs = site.http.get("/docs", headers={"Accept": "text/html"}).text
    for method, path in expected:
        assert f"<code>{method} {path}</code>" in docs


def test_answers_have_the_members_that_openapi_promises(site: Site):
    api = site.http.get("/openapi.json").json()["components"]["schemas"]
    analysis = start_analysis(site)
    finish_analysis(site)
    plan = site.http.post(
        "/api/plans", json={"analysis_id": analysis["id"], "sparsities": {}}
    ).json()
    site.http.post(f"/api/plans/{plan['id']}/measure")
    finish_measurement(site)
    measured = site.http.get(f"/api/plans/{plan['id']}").json()
    experiment = site.http.post(
        "/api/experiments", json={"plan_id": plan["id"], "epochs": 1}
    ).json()
    shown = {
        "Model": site.http.get(f"/api/models/{analysis['model_id']}").json(),
        "Dataset": site.http.get(f"/api/datasets/{analysis['dataset_id']}").json(),
        "Analysis": site.http.get(f"/api/analyses/{analysis['id']}").json(),
        "Plan": plan,
        "Experiment": experiment,
        "Job": site.http.get(f"/api/jobs/{analysis['job_id']}").json(),
    }
    shown["Unit"] = shown["Model"]["units"]["weight"][0]
    shown["Point"] = shown["Analysis"]["curves"][0]["points"][0]
    shown["Predicted"] = plan["predicted"]
    shown["Measurement"] = measured["measurements"][0]
    for name, document in shown.items():
        assert set(document) == set(api[name]["required"]), name


def test_json_in_a_page_cannot_end_its_script():
    text = str(json_script({"name": NASTY}))
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"name": NASTY}
