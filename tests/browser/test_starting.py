"""How an analysis is started, and what can be done to jobs, with the server played by a stage."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from app.domain.criteria import CRITERIA
from tests.browser.looking import accessible
from tests.browser.shapes import JSON, home_state, job, jobs_state
from tests.browser.stage import Stage

pytestmark = pytest.mark.browser

LISTED = {
    "items": [
        {"name": each.name, "title": each.title, "description": each.description,
         "needs": each.needs.value, "source": each.source, "rewrites": each.rewrites}
        for each in CRITERIA.values()
    ]
}  # fmt: skip


def home(page: Page, stage: Stage, state: JSON | None = None) -> None:
    stage.show("/", "home.html", state or home_state())
    stage.show("/analyses/7", "problem.html", {"status": 200, "title": "There", "detail": "It is."})
    stage.answers["/api/criteria"] = LISTED
    stage.answers["/api/analyses"] = {"id": 7}
    page.goto(f"{stage.url}/?model=1&dataset=1")


def start(page: Page, stage: Stage) -> JSON:
    page.get_by_role("button", name="Analyse", exact=True).click()
    page.wait_for_url("**/analyses/7")
    return stage.posted("/api/analyses")[-1]


def test_the_defaults_are_adaptive_to_one_point(page: Page, stage: Stage) -> None:
    home(page, stage)
    expect(page.locator("#ev-say")).to_contain_text("±\u202f1\u202fpp")
    accessible(page)
    assert start(page, stage) == {
        "model_id": 1, "dataset_id": 1,
        "evaluation": {"mode": "adaptive", "half_width": 0.01, "confidence": 0.95},
    }  # fmt: skip


def test_everything_can_be_said(page: Page, stage: Stage) -> None:
    home(page, stage)
    page.get_by_text("knee", exact=True).click()
    expect(page.get_by_label("to", exact=True)).to_be_hidden()
    page.get_by_label("tolerated drop").fill("0.5")
    page.locator("#ev-confidence").select_option("0.99")
    page.get_by_text("More: criteria").click()
    for name in ("Fisher", "SparseGPT, order only"):
        page.get_by_role("checkbox", name=re.compile(f"^{name} ")).check()
    page.get_by_label("Sparsity levels, %").fill("20, 50 90")
    page.get_by_label("Extra levels").fill("3")
    page.get_by_text("bf16", exact=True).click()
    page.get_by_label("recalibrate on train").check()
    page.get_by_label("strictly valid").check()
    page.get_by_label("Priority").select_option("high")
    accessible(page)
    assert start(page, stage) == {
        "model_id": 1, "dataset_id": 1, "criteria": ["magnitude", "fisher", "sparsegpt"],
        "sparsities": [0.2, 0.5, 0.9], "recalibrate_batch_norm": True, "priority": "high",
        "evaluation": {"mode": "knee", "tolerance": 0.005, "confidence": 0.99, "refine": 3,
                       "precision": "bfloat16", "method": "sequence"},
    }  # fmt: skip


def test_exact_has_no_intervals_to_choose(page: Page, stage: Stage) -> None:
    home(page, stage)
    page.get_by_text("exact", exact=True).click()
    expect(page.locator("#ev-confidence")).to_be_hidden()
    assert start(page, stage)["evaluation"] == {"mode": "exact"}


def test_every_criterion_has_its_sentence_and_what_it_needs(page: Page, stage: Stage) -> None:
    home(page, stage, home_state(train=0))
    page.get_by_text("More: criteria").click()
    boxes = page.locator("input[name=criterion]")
    expect(boxes).to_have_count(len(CRITERIA))
    for each in CRITERIA.values():
        box = page.locator(f"input[name=criterion][value='{each.name}']")
        label = page.locator("label", has=box)
        expect(label).to_contain_text(each.title)
        expect(label).to_contain_text(each.description)
        group = page.locator("#ev-criteria fieldset", has=box).locator("legend")
        expect(group).to_have_text("Need the train split" if each.needs.data else "Need no data")
        # This data set has no train split.
        assert box.is_disabled() == each.needs.data
    expect(page.get_by_label("recalibrate on train")).to_be_disabled()
    expect(page.locator("input[name=criterion]:checked")).to_have_attribute("value", "magnitude")


def test_what_is_typed_wrongly_is_pointed_at(page: Page, stage: Stage) -> None:
    home(page, stage)
    analyse = page.get_by_role("button", name="Analyse", exact=True)
    page.locator("#ev-width").fill("0")
    analyse.click()
    expect(page.locator("#start-problem")).to_contain_text("half width has to be a number above 0")
    expect(page.locator("#ev-width")).to_be_focused()
    page.locator("#ev-width").fill("1")
    page.get_by_text("More: criteria").click()
    page.get_by_role("checkbox", name=re.compile("^Magnitude ")).uncheck()
    page.get_by_text("More: criteria").click()
    analyse.click()
    expect(page.locator("#start-problem")).to_contain_text("at least one criterion")
    expect(page.locator("#more")).to_have_attribute("open", "")
    page.get_by_role("checkbox", name=re.compile("^Random ")).check()
    page.get_by_label("Sparsity levels, %").fill("20, many")
    analyse.click()
    expect(page.locator("#start-problem")).to_contain_text("“many” is not a number")
    page.get_by_label("Sparsity levels, %").fill("")
    assert start(page, stage)["criteria"] == ["random"]


def test_a_models_page_has_the_same_form(page: Page, stage: Stage) -> None:
    state = home_state()
    model = state["models"][0] | {
        "sha256": "ab" * 32, "macs": 1, "details": {}, "layers": [], "units": {"weight": []},
        "fixed_batch": None,
    }  # fmt: skip
    given = {"model": model, "analyses": [], "datasets": state["datasets"]}
    stage.show("/models/1", "model.html", given, "resnet20.pt2")
    stage.show("/analyses/7", "problem.html", {"status": 200, "title": "There", "detail": "It is."})
    stage.answers["/api/criteria"] = LISTED
    stage.answers["/api/analyses"] = {"id": 7}
    page.goto(f"{stage.url}/models/1")
    page.locator("#ev-width").fill("0.25")
    accessible(page)
    assert start(page, stage)["evaluation"]["half_width"] == 0.0025


def test_jobs_can_be_paused_resumed_and_preferred(page: Page, stage: Stage) -> None:
    jobs = [job(9), job(8, state="queued", paused=True), job(6, "import-model"),
            job(5, state="done", finished_at="2026-07-29T10:01:00Z")]  # fmt: skip
    stage.show("/jobs", "jobs.html", jobs_state(*jobs))
    for path in ("9/pause", "8/resume", "8/priority"):
        stage.answers[f"/api/jobs/{path}"] = {}
    page.goto(f"{stage.url}/jobs")
    expect(page.locator("#summary")).to_have_text("2 running, 0 waiting, 1 paused.")
    expect(page.locator("tr[data-job='8'] [data-state]")).to_have_text("paused")
    expect(page.locator("tr[data-job='9'] .act .btn")).to_have_count(2)
    # An import would begin anew, and what has ended can't wait.
    expect(page.locator("tr[data-job='6'] .act .btn")).to_have_count(1)
    expect(page.locator("tr[data-job='5'] :is(.act, .prefer) button")).to_have_count(0)
    accessible(page)
    page.get_by_label("Pause: Analysis resnet20").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#toasts")).to_contain_text("Paused; what is done is kept.")
    page.get_by_label("Resume: Analysis resnet20").click()
    row = page.locator("tr[data-job='8']")
    expect(row.get_by_role("button", name="normal")).to_have_attribute("aria-pressed", "true")
    preferred = jobs_state(jobs[0], jobs[1] | {"priority": "high"})
    stage.answers["/api/jobs/8/priority"] = lambda _: stage.show("/jobs", "jobs.html", preferred)
    row.get_by_role("button", name="high").focus()
    page.keyboard.press("Enter")
    expect(row.get_by_role("button", name="high")).to_have_attribute("aria-pressed", "true")
    assert stage.posted("/api/jobs/8/priority") == [{"priority": "high"}]
    assert len(stage.posted("/api/jobs/9/pause")) == len(stage.posted("/api/jobs/8/resume")) == 1


def looked_again(page: Page, times: int = 1) -> None:
    """The page has fetched its own state and shown it."""
    for _ in range(times):
        with page.expect_response(lambda response: response.url.endswith("/jobs")):
            pass
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


def test_the_keyboard_stays_on_its_own_job_among_others_of_the_same_name(
    page: Page, stage: Stage
) -> None:
    stage.show("/jobs", "jobs.html", jobs_state(job(9), job(8), job(7)))
    for path in ("8/priority", "8/pause", "8/cancel"):
        stage.answers[f"/api/jobs/{path}"] = {}
    page.goto(f"{stage.url}/jobs")
    row = page.locator("tr[data-job='8']")
    for name, path in (("high", "priority"), ("Pause", "pause"), ("Cancel", "cancel")):
        row.get_by_role("button", name=name).focus()
        looked_again(page, times=2)
        expect(row.get_by_role("button", name=name)).to_be_focused()
        page.keyboard.press("Enter")
        looked_again(page)
        # What was pressed did its work; the next key still goes to the same row.
        expect(row.get_by_role("button", name=name)).to_be_focused()
        assert len(stage.posted(f"/api/jobs/8/{path}")) == 1


def test_a_paused_jobs_button_takes_the_focus_of_the_one_it_replaces(
    page: Page, stage: Stage
) -> None:
    stage.show("/jobs", "jobs.html", jobs_state(job(9), job(8)))
    stage.answers |= {"/api/jobs/8/pause": {}, "/api/jobs/8/resume": {}}
    page.goto(f"{stage.url}/jobs")
    row = page.locator("tr[data-job='8']")
    row.get_by_role("button", name="Pause").focus()
    stage.show("/jobs", "jobs.html", jobs_state(job(9), job(8, state="queued", paused=True)))
    page.keyboard.press("Enter")
    expect(row.get_by_role("button", name="Resume")).to_be_focused()
    page.keyboard.press("Enter")
    looked_again(page)
    assert len(stage.posted("/api/jobs/8/resume")) == 1


def test_a_second_press_while_the_first_is_under_way_asks_nothing(page: Page, stage: Stage) -> None:
    stage.show("/jobs", "jobs.html", jobs_state(job(8)))
    stage.answers |= {"/api/jobs/8/pause": {}, "/api/jobs/8/priority": {}}
    page.goto(f"{stage.url}/jobs")
    row = page.locator("tr[data-job='8']")
    for name, path in (("Pause", "pause"), ("high", "priority")):
        row.get_by_role("button", name=name).evaluate("(it) => { it.click(); it.click(); }")
        looked_again(page)
        assert len(stage.posted(f"/api/jobs/8/{path}")) == 1
