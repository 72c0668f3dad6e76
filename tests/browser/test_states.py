"""States that a page is seldom in, and must be right in all the same."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from app.store.tables import Dataset
from tests.contract.site import (
    Site,
    context_of,
    finish_analysis,
    finish_measurement,
    ready_dataset,
    ready_model,
    start_analysis,
    take_job,
    unit,
    write_points,
)

pytestmark = pytest.mark.browser

GRID = [0.2, 0.4, 0.6, 0.8]
LONG = "n" * 60 + "<b>&amp;" + "z" * 12


def analysed(site: Site, **body: object) -> int:
    start_analysis(site, **{"sparsities": GRID} | body)
    return finish_analysis(site)


def test_what_an_earlier_analysis_measured_is_there_at_once(page: Page, site: Site) -> None:
    model, dataset = ready_model(site), ready_dataset(site)
    analysed(site, model_id=model, dataset_id=dataset)
    second = start_analysis(site, model_id=model, dataset_id=dataset, sparsities=[0.3, 0.4, 0.6])
    page.goto(f"{site.url}/analyses/{second['id']}")
    expect(page.locator("#k-pred")).to_have_text("95.0")
    expect(page.locator("#waiting")).to_be_hidden()
    expect(page.locator("#foot-points")).to_contain_text("6 of 9 points known, 6 from before")
    lease = take_job(site, "analyse")
    write_points(site, lease, context_of(site, lease), [("conv.weight", 300_000, 72)])
    expect(page.locator("#foot-points")).to_contain_text("7 of 9 points")
    expect(page.locator("#jobs-count")).to_have_text("1")


def test_a_tensor_too_small_to_lose_anything_is_not_called_robust(page: Page, site: Site) -> None:
    model = ready_model(site, [unit("tiny.weight", (1, 4), 4), unit("big.weight", (8, 64), 512)])
    analysis_id = analysed(site, model_id=model, sparsities=[0.05, 0.1])
    page.goto(f"{site.url}/analyses/{analysis_id}?unit=tiny.weight&t=10,0")
    chips = page.locator("tr[data-unit='tiny.weight'] .chip")
    expect(chips).to_have_text("nothing removed")
    expect(page.locator("#readout")).to_contain_text("10 % of 4 weights: nothing removed")
    expect(page.locator("#readout")).not_to_contain_text("holds")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#readout")).to_contain_text("nothing is removed up to 10 %")
    expect(chips).to_have_text("nothing removed")
    expect(page.locator("tr[data-unit='big.weight'] .chip")).to_contain_text("holds")
    # Neither does the heat map paint it as "no loss".
    shown = page.locator("#heat .spared").get_attribute("d") or ""
    assert shown.count("Z") == 2
    expect(page.locator("#v-curves [data-key=spared]")).to_be_visible()


def test_an_empty_plan_asks_for_thresholds_first(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/analyses/{analysed(site)}")
    expect(page.locator("#measure")).to_be_disabled()
    expect(page.locator("#measure-note")).to_have_text("Choose thresholds first.")
    page.get_by_role("button", name="Start from the knees").click()
    expect(page.locator("#measure")).to_be_enabled()


def test_a_second_press_starts_no_second_experiment(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/analyses/{analysed(site)}?t=40*3")
    asked: list[str] = []

    def slowly(route: Route) -> None:
        asked.append(route.request.url)
        time.sleep(0.3)
        route.continue_()

    page.route(re.compile(r"/(api/)?experiments(/\d+)?$"), slowly)
    page.locator("#retrain").click()
    # A prediction never comes without its uncertainty.
    expect(page.locator("#retrain-plan")).to_contain_text(re.compile(r"\(±\s[\d.]+\) predicted"))
    start = page.locator("#retrain-dialog button[type=submit]")
    start.click(no_wait_after=True)
    expect(start).to_be_disabled()
    start.dispatch_event("click")
    page.wait_for_url(re.compile(r"/experiments/\d+"))
    assert len([url for url in asked if url.endswith("/api/experiments")]) == 1
    assert len(site.http.get("/api/experiments").json()["items"]) == 1
    # The way back knows it.
    page.get_by_role("link", name="Analysis", exact=True).click()
    expect(page.locator(".retrained a")).to_have_attribute("href", "/experiments/1")


def test_a_measure_job_leads_to_its_plan(page: Page, site: Site) -> None:
    analysis_id = analysed(site)
    body = {"analysis_id": analysis_id, "sparsities": {"hidden.weight": 0.5}}
    plan = site.http.post("/api/plans", json=body).json()["id"]
    job = site.http.post(f"/api/plans/{plan}/measure", json={"split": "tune"}).json()
    assert job["analysis_id"] == analysis_id
    finish_measurement(site)
    page.goto(f"{site.url}/jobs")
    page.get_by_role("link", name=f"Measure plan #{plan}").click()
    expect(page).to_have_url(re.compile(rf"/analyses/{analysis_id}\?plan={plan}"))
    expect(page.locator("#k-meas-v")).to_have_text("90.0")


def test_how_the_splits_came_about_is_said_beside_the_curves(page: Page, site: Site) -> None:
    dataset = ready_dataset(site)
    with site.store.write() as session:
        row = session.get_one(Dataset, dataset)
        row.details = {**(row.details or {}), "notes": ["tune was cut from <i>train</i>."]}
    page.goto(f"{site.url}/analyses/{analysed(site, dataset_id=dataset)}")
    expect(page.locator("#data-notes")).to_contain_text("tune was cut from <i>train</i>.")
    expect(page.locator("#data-notes a")).to_have_attribute("href", f"/datasets/{dataset}")


def test_long_names_keep_their_ends_and_their_place(page: Page, site: Site) -> None:
    units = [unit(f"{'stage_' * 12}x.{i}.{i}.weight", (8, 9), 100) for i in range(2)]
    model = ready_model(site, units, name=LONG)
    analysis_id = analysed(site, model_id=model)
    page.goto(f"{site.url}/analyses/{analysis_id}")
    for row in page.locator("#layers tr").all():
        cut = row.locator(".leaf").evaluate(
            """leaf => {
              const text = leaf.firstElementChild.firstChild;
              const range = document.createRange();
              range.setStart(text, text.length - 1);
              range.setEnd(text, text.length);
              const end = range.getBoundingClientRect();
              const box = leaf.getBoundingClientRect();
              return end.right - box.right;
            }"""
        )
        assert cut <= 1
    page.set_viewport_size({"width": 390, "height": 844})
    for path in ("/", "/jobs", f"/analyses/{analysis_id}", f"/models/{model}"):
        page.goto(site.url + path)
        expect(page.get_by_text("nnnnnnnn").first).to_be_attached()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


def test_data_that_fits_the_model_is_offered_first(page: Page, site: Site) -> None:
    good = ready_dataset(site)
    other = ready_dataset(site, content=b"other data")
    with site.store.write() as session:
        session.get_one(Dataset, other).input_shape = [3, 32, 32]
    page.goto(f"{site.url}/models/{ready_model(site)}")
    options = page.locator("#dataset option")
    expect(options.nth(0)).to_have_text(f"digits.npz (#{good})")
    expect(options.nth(1)).to_have_text(f"digits.npz (#{other}): 3 × 32 × 32, does not fit")
    expect(page.locator("#dataset")).to_have_value(str(good))


def test_the_same_error_twice_is_one_message(context: BrowserContext, site: Site) -> None:
    # Not the `page` fixture: a refused request is an error in the console, and wanted here.
    page = context.new_page()
    page.goto(f"{site.url}/analyses/{analysed(site)}?t=40*3")
    refused = '{"type": "about:blank", "title": "No", "detail": "Not now.", "status": 409}'
    page.route("**/api/plans", lambda route: route.fulfill(status=409, body=refused))
    for _ in range(2):
        with page.expect_response("**/api/plans"):
            page.locator("#measure").click()
        expect(page.locator("#measure")).to_be_enabled()
    expect(page.locator("#toasts .toast")).to_have_count(1)
    expect(page.locator("#toasts")).to_contain_text("Not now.")


def test_the_dock_marks_what_is_on_the_screen_after_a_turn_of_the_screen(
    page: Page, site: Site
) -> None:
    page.set_viewport_size({"width": 1280, "height": 844})
    page.goto(f"{site.url}/analyses/{analysed(site)}")
    expect(page.locator("#foot-points")).to_contain_text("points")
    page.set_viewport_size({"width": 390, "height": 844})
    marked = page.locator(".dock [aria-current]")
    expect(marked).to_have_text("Chart")
    for name in ("Layers", "Plan", "Chart"):
        page.locator(".dock").get_by_role("link", name=name).click()
        expect(marked).to_have_text(name)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(marked).to_have_text("Layers")
    page.evaluate("scrollTo(0, 0)")
    expect(marked).to_have_text("Chart")
