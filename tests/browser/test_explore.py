"""The explore page in real Chromium against a real server, with a stand-in for the worker.

The stand-in says when points arrive, so that every state of a live page can be looked at.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from app.domain.prediction import UnitFacts, curve_point, plan_costs, predict_accuracy
from app.store import queue
from tests.browser.looking import settle
from tests.contract.site import (
    UNITS,
    Site,
    correct_at,
    finish_analysis,
    finish_measurement,
    ready_dataset,
    ready_model,
    start_analysis,
    take_job,
    unit,
    write_baseline,
    write_points,
)

pytestmark = pytest.mark.browser

GRID = [0.2, 0.4, 0.6, 0.8]
CONV, HIDDEN, HEAD = (name for name, _, _ in UNITS)
SIZES = {"conv.weight": 72, "hidden.weight": 4096, "head.weight": 320}


def analysed(site: Site, **body: Any) -> int:
    start_analysis(site, sparsities=GRID, **body)
    return finish_analysis(site)


def field(page: Page, name: str) -> Any:
    return page.get_by_label(f"Sparsity of {name} in percent")


def number(text: str | None) -> float:
    assert text is not None
    return float(re.sub(r"[^0-9.\-]", "", text.replace("−", "-")))


def test_curves_arrive_while_somebody_watches(page: Page, site: Site) -> None:
    analysis = start_analysis(site, sparsities=GRID)
    page.goto(f"{site.url}/analyses/{analysis['id']}")
    expect(page.locator("#run-word")).to_have_text("waiting for a worker")
    expect(page.locator("#waiting")).to_be_visible()
    expect(page.locator("#measure")).to_be_disabled()

    lease = take_job(site, "analyse")
    write_baseline(site, lease, "live")
    expect(page.locator("#k-pred")).to_have_text("95.0")
    expect(page.locator("#run-word")).to_have_text("running")
    expect(page.locator("#waiting")).to_be_hidden()

    write_points(site, lease, "live", [(name, 400_000, SIZES[name]) for name in SIZES])
    expect(page.locator("#foot-points")).to_contain_text("3 of 12 points")
    expect(page.locator("tr[data-unit='conv.weight'] .chip")).to_have_text("1 of 4")
    expect(page.locator("#run-spoken")).to_have_text("Sensitivity analysis 25 per cent done.")
    # One measured level, one marker: what is not measured has none.
    expect(page.locator("#curves .scatterlayer .point")).to_have_count(1)

    # Sorted rows stay where they are until somebody asks.
    page.get_by_text("sensitivity", exact=True).click()
    order = "[...document.querySelectorAll('#layers tr')].map((row) => row.dataset.unit)"
    before = page.evaluate(order)
    rest = [(n, level, SIZES[n]) for n in SIZES for level in (200_000, 600_000, 800_000)]
    write_points(site, lease, "live", rest)
    expect(page.locator("#foot-points")).to_contain_text("12 of 12 points")
    assert page.evaluate(order) == before
    with queue.fenced(site.store, lease) as session:
        queue.finish(session, lease)
    expect(page.locator("#run-status")).to_be_hidden()
    expect(page.locator("#run-spoken")).to_have_text("Sensitivity analysis complete.")


def test_stopping_keeps_what_is_measured_and_continuing_asks_again(page: Page, site: Site) -> None:
    analysis = start_analysis(site, sparsities=GRID)
    lease = take_job(site, "analyse")
    write_baseline(site, lease, "stopped")
    write_points(site, lease, "stopped", [("conv.weight", 400_000, 72)])
    page.goto(f"{site.url}/analyses/{analysis['id']}")
    with page.expect_response("**/cancel"):
        page.get_by_label("Stop the analysis").click()
    with queue.fenced(site.store, lease) as session:
        queue.mark_cancelled(session, lease)
    expect(page.locator("#run-problem")).to_contain_text("1 of 12 points are measured and kept")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#run-word")).to_have_text("waiting for a worker")
    expect(page.locator("#run-problem")).to_be_hidden()
    lease = take_job(site, "analyse")
    with queue.fenced(site.store, lease) as session:
        queue.fail(session, lease, {"code": "x", "message": "It <b>broke</b>.", "hint": "Do that."})
    expect(page.locator("#run-problem")).to_contain_text("It <b>broke</b>. Do that.")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_an_answer_that_comes_late_does_not_undo_what_was_told(page: Page, site: Site) -> None:
    """Events and answers come by two connections: the job may have failed before the answer that it
    waits again is here."""
    analysis = start_analysis(site, sparsities=GRID)
    lease = take_job(site, "analyse")
    write_baseline(site, lease, "late")
    with queue.fenced(site.store, lease) as session:
        queue.fail(session, lease, {"code": "x", "message": "Once.", "hint": ""})
    page.goto(f"{site.url}/analyses/{analysis['id']}")
    problem = page.locator("#run-problem")
    expect(problem).to_contain_text("Once.")

    def late(route: Route) -> None:
        answer = route.fetch()
        again = take_job(site, "analyse")
        with queue.fenced(site.store, again) as session:
            queue.fail(session, again, {"code": "x", "message": "Twice.", "hint": ""})
        expect(problem).to_contain_text("Twice.")
        route.fulfill(response=answer)

    page.route("**/retry", late)
    with page.expect_response("**/retry"):
        page.get_by_role("button", name="Try again").click()
    settle(page)
    page.wait_for_timeout(200)
    expect(problem).to_be_visible()
    expect(problem).to_contain_text("Twice.")


def test_the_figures_are_those_of_the_server(page: Page, site: Site) -> None:
    analysis_id = analysed(site)
    page.goto(f"{site.url}/analyses/{analysis_id}")
    plan = {"conv.weight": 0.125, "hidden.weight": 0.7, "head.weight": 0.35}
    for name, sparsity in plan.items():
        field(page, name).fill(str(sparsity * 100))
    settle(page)

    curves = {
        name: [
            curve_point(s, correct_at(name, round(s * 1e6)) / 1000,
                        950 - correct_at(name, round(s * 1e6)) + 3, 3, 1000)
            for s in GRID
        ]
        for name in plan
    }  # fmt: skip
    accuracy, low, high = predict_accuracy(curves, 0.95, plan)
    assert number(page.text_content("#k-pred")) == pytest.approx(accuracy * 100, abs=0.0501)
    half = max(high - accuracy, accuracy - low) * 100
    assert number(page.text_content("#k-pred-s")) == pytest.approx(half, abs=0.0501)
    units = [UnitFacts(name, size, 1, 4, macs) for (name, _, macs), size in
             zip(UNITS, SIZES.values(), strict=True)]  # fmt: skip
    total = sum(SIZES.values()) + 8
    sparsity, parameters, _, _ = plan_costs(
        units, plan, total_parameters=total, total_macs=9024, total_bytes=4 * total
    )
    assert number(page.text_content("#k-sparsity")) == pytest.approx(sparsity * 100, abs=0.0501)
    expect(page.locator("#k-params-s")).to_contain_text(f"{parameters:,} non-zero")


def test_one_drag_is_one_step_and_every_control_says_the_same(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/analyses/{analysed(site)}?unit=hidden.weight")
    handle = page.locator("#handle")
    expect(handle).to_have_attribute("aria-valuenow", "0")
    plot = page.locator("#curves").bounding_box()
    grip = handle.bounding_box()
    assert plot
    assert grip
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + 60
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, 21):
        page.mouse.move(x + step * 10, y)
    page.mouse.up()
    settle(page)
    dragged = field(page, "hidden.weight").input_value()
    assert 20 < float(dragged) < 80
    slider = page.get_by_label("Sparsity of hidden.weight", exact=True)
    expect(slider).to_have_value(dragged)
    expect(handle).to_have_attribute("aria-valuenow", dragged)

    handle.press("ArrowRight")
    handle.press("Shift+ArrowRight")
    handle.press("PageUp")
    expect(slider).to_have_value(str(int(dragged) + 16))
    handle.press("End")
    expect(slider).to_have_value("100")
    for expected in (int(dragged) + 16, int(dragged) + 6, int(dragged) + 1, int(dragged), 0):
        page.keyboard.press("Control+z")
        expect(slider).to_have_value(str(expected))
    expect(page.locator("#undo")).to_be_disabled()
    page.keyboard.press("Control+y")
    expect(slider).to_have_value(dragged)


def test_a_measurement_goes_stale_at_once_and_comes_back(page: Page, site: Site) -> None:
    analysis_id = analysed(site)
    page.goto(f"{site.url}/analyses/{analysis_id}")
    field(page, "hidden.weight").fill("60")
    field(page, "hidden.weight").press("Tab")
    page.locator("#layers-h").evaluate("() => document.activeElement.blur()")
    with page.expect_response("**/measure"):
        page.keyboard.press("m")
    expect(page.locator("#measure-note")).to_have_text("Waiting for a worker.")
    finish_measurement(site)
    expect(page.locator("#k-meas-v")).to_have_text("90.0")
    expect(page.locator("#k-meas-s")).to_contain_text("n = 1,000")
    expect(page.locator("#k-meas")).not_to_have_class(re.compile("stale"))
    expect(page.locator("#hist tr")).to_have_count(1)

    field(page, "hidden.weight").fill("61")
    expect(page.locator("#k-meas")).to_have_class(re.compile("stale"))
    expect(page.locator("#k-meas-s")).to_contain_text("of the previous plan")
    page.wait_for_timeout(400)
    assert re.search(r"\?plan=1&t=0,61,0", page.url)
    page.reload()
    expect(page.locator("#k-meas")).to_have_class(re.compile("stale"))
    expect(field(page, "hidden.weight")).to_have_value("61")
    page.locator("#hist a").click()
    expect(page.locator("#k-meas")).not_to_have_class(re.compile("stale"))
    expect(field(page, "hidden.weight")).to_have_value("60")
    expect(page).to_have_url(re.compile(r"\?plan=1&unit=hidden.weight$"))


def test_starting_from_the_knees_keeps_every_layer_inside_the_tolerance(
    page: Page, site: Site
) -> None:
    page.goto(f"{site.url}/analyses/{analysed(site)}?tol=5")
    page.get_by_role("button", name="Start from the knees").click()
    settle(page)
    for name in SIZES:
        percent = float(field(page, name).input_value())
        curve = [curve_point(s, correct_at(name, round(s * 1e6)) / 1000, 0, 0, 1) for s in GRID]
        at = {name: curve}
        kept = predict_accuracy(at, 0.95, {name: percent / 100})[0]
        assert 0.95 - kept <= 0.05 + 1e-9
        if percent < 80:
            beyond = predict_accuracy(at, 0.95, {name: percent / 100 + 0.01})[0]
            assert 0.95 - beyond > 0.05
    page.locator("#undo").click()
    expect(page.locator("#k-sparsity")).to_have_text("0.0")


def test_links_that_name_what_is_not_here_are_ignored(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/analyses/{analysed(site)}?unit=no.such&t=1,2&plan=77&scale=odd")
    expect(page.locator("#toasts")).to_contain_text("not in this analysis")
    expect(page.locator("#layers tr[aria-current=true]")).to_have_attribute("data-unit", CONV)
    expect(page.locator("#k-sparsity")).to_have_text("0.0")


def test_names_from_the_model_stay_text(page: Page, site: Site) -> None:
    evil = "<img src=x onerror=alert(1)>.weight"
    model = ready_model(site, [unit(evil, (8, 9), 100), unit("b & <i>c</i>.weight", (8, 9), 1)])
    page.goto(f"{site.url}/analyses/{analysed(site, model_id=model)}")
    expect(page.locator("#curves .annotation-text").filter(has_text="<img").first).to_be_visible()
    expect(page.locator("#layers .lname").first).to_contain_text("onerror=alert(1)")
    assert page.locator("main img").count() == 0
    assert page.locator("main i >> text=c").count() == 0


def test_retraining_needs_a_train_split(page: Page, site: Site) -> None:
    dataset = ready_dataset(site, train=0)
    page.goto(f"{site.url}/analyses/{analysed(site, dataset_id=dataset)}?t=50*3")
    expect(page.locator("#retrain")).to_be_disabled()
    expect(page.locator("#retrain-note")).to_contain_text("no train split")


def test_shortcuts_leave_text_fields_alone_and_can_be_switched_off(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/analyses/{analysed(site)}")
    current = page.locator("#layers tr[aria-current=true]")
    page.keyboard.press("/")
    page.keyboard.type("jhead")
    expect(page.locator("#no-match")).to_be_visible()
    page.locator("#q").fill("")
    settle(page)
    page.locator("#q").press("Tab")
    page.locator("#q").evaluate("() => document.activeElement.blur()")
    expect(current).to_have_attribute("data-unit", CONV)
    page.keyboard.press("j")
    expect(current).to_have_attribute("data-unit", HIDDEN)
    page.keyboard.press("ArrowRight")
    expect(field(page, HIDDEN)).to_have_value("1")
    page.keyboard.press("?")
    page.get_by_label("Single keys work outside text fields").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.reload()
    page.keyboard.press("j")
    settle(page)
    assert page.locator(f"tr[data-unit='{HEAD}'][aria-current=true]").count() == 0


def test_five_hundred_layers_stay_usable(page: Page, site: Site) -> None:
    units = [unit(f"block{i // 10}.conv{i % 10}.weight", (16, 36), 1000) for i in range(500)]
    model = ready_model(site, units)
    start_analysis(site, model_id=model, sparsities=[i / 20 for i in range(1, 20)])
    page.goto(f"{site.url}/analyses/{finish_analysis(site)}")
    expect(page.locator("#layers tr")).to_have_count(500)
    grip = page.locator("#handle").bounding_box()
    assert grip
    page.mouse.move(grip["x"] + 12, grip["y"] + 60)
    page.mouse.down()
    page.evaluate(
        """() => {
          window.changed = new Set();
          window.frames = [];
          let last = performance.now();
          const tick = (now) => {
            frames.push(now - last);
            last = now;
            requestAnimationFrame(tick);
          };
          requestAnimationFrame(tick);
          new MutationObserver((records) => {
            for (const record of records) changed.add(record.target.closest('tr')?.dataset.unit);
          }).observe(document.getElementById('layers'), { subtree: true, attributes: true });
        }"""
    )
    for step in range(1, 41):
        page.mouse.move(grip["x"] + 12 + step * 6, grip["y"] + 60)
        page.wait_for_timeout(10)
    page.mouse.up()
    settle(page)
    assert float(field(page, "block0.conv0.weight").input_value()) > 10
    # Only the row that moved was touched, and most frames of the drag were on time.
    assert page.evaluate("[...changed]") == ["block0.conv0.weight"]
    median = page.evaluate("frames.sort((a, b) => a - b)[frames.length >> 1]")
    assert median < 50
