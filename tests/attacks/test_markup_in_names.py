"""Names that are markup, on every page, in a real browser: they are shown, never obeyed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.browser.conftest import CHROMIUM_FLAGS
from tests.contract.site import (
    TOKEN,
    Site,
    finish_analysis,
    ready_dataset,
    ready_model,
    start_analysis,
    unit,
)

NAMES = [
    "<img src=x onerror=window.hacked=1>",
    "</script><script>window.hacked=1</script>",
    "<a href='javascript:window.hacked=1'>x</a><b>bold</b>",
    "'\"><svg onload=window.hacked=1>",
    "{{ 7 * 7 }}${7*7}<!--",
]


@pytest.fixture(scope="module")
def addresses(site: Site) -> dict[str, list[str]]:
    """Pages by the kind of name they show; everything there is named in markup."""
    shown: dict[str, list[str]] = {"home": ["/", "/jobs"]}
    for number, name in enumerate(NAMES):
        # Imports admit no such unit; the pages must not rely on it.
        units = [unit(name, (8, 1, 3, 3), 4608), unit(f"b{name}", (10, 32), 320)]
        model = ready_model(site, units, content=name.encode(), name=name)
        dataset = ready_dataset(site, content=name.encode())
        start_analysis(site, model_id=model, dataset_id=dataset, sparsities=[0.3, 0.6])
        analysis = finish_analysis(site, f"context-{number}")
        body = {"analysis_id": analysis, "name": name, "sparsities": {name: 0.5}}
        plan = site.http.post("/api/plans", json=body).json()["id"]
        experiment = site.http.post("/api/experiments", json={"plan_id": plan, "epochs": 1})
        shown[name] = [
            f"/models/{model}",
            f"/datasets/{dataset}",
            f"/analyses/{analysis}",
            f"/analyses/{analysis}?plan={plan}",
            f"/experiments/{experiment.json()['id']}",
        ]
        job = experiment.json()["job_id"]
        assert site.http.post(f"/api/jobs/{job}/cancel").status_code == 202
    return shown


@pytest.fixture(scope="module")
def page(site: Site) -> Iterator[Page]:
    path = os.environ.get("PRUNESCOPE_CHROMIUM") or shutil.which("chromium")
    assert path, "no Chromium: make test installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        opened = browser.new_page()
        opened.goto(f"{site.url}/sign-in?token={TOKEN}")
        yield opened
        browser.close()


@pytest.mark.parametrize("name", ["home", *NAMES], ids=range(len(NAMES) + 1))
def test_a_name_is_text(site: Site, page: Page, addresses: dict[str, list[str]], name: str) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    for address in addresses[name]:
        page.goto(site.url + address)
        page.wait_for_load_state("load")
        if address.startswith("/analyses/"):
            page.wait_for_selector(".js-plotly-plot .xtick", state="attached", timeout=10_000)
        made = page.evaluate(
            """() => [...document.querySelectorAll('*')].filter(e =>
                e.matches('[onerror], [onload], a[href^="javascript"], .js-plotly-plot svg a')
                || e.textContent === 'bold').map(e => e.outerHTML)"""
        )
        assert made == [], address
        assert page.evaluate("window.hacked === undefined"), address
        if name != "home" and address.startswith(("/models/", "/analyses/")):
            assert page.evaluate("name => document.body.textContent.includes(name)", name), address
    assert not [text for text in complaints if "Content Security Policy" in text]


def test_curves_csv_holds_no_formula(site: Site) -> None:
    hostile = ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)"]
    units = [unit(each, (10, 32), 320) for each in hostile]
    model = ready_model(site, units, content=b"formulas")
    start_analysis(site, model_id=model, sparsities=[0.5])
    analysis = finish_analysis(site, "context-csv")
    rows = site.http.get(f"/api/analyses/{analysis}/curves.csv").text.splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [f"'{each}" for each in hostile]
