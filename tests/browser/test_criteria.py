"""Several criteria in one analysis: over each other, side by side, and what each class loses."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from app.domain.metrics import Kind
from tests.browser.looking import accessible, settle
from tests.browser.shapes import GRID, JSON, SPLIT, explore_state, layer_names, point
from tests.browser.stage import Stage

pytestmark = pytest.mark.browser

NAMES = layer_names(1)
UNIT = NAMES[1]
PATH = "/analyses/3"
BOTH = ("magnitude", "fisher")


def both(samples: int = SPLIT) -> dict[tuple[str, str], list[JSON]]:
    return {(u, c): [point(u, s, samples, c) for s in GRID] for u in NAMES for c in BOTH}


def open_page(page: Page, stage: Stage, state: JSON, query: str = "") -> None:
    stage.show(PATH, "explore.html", state, "resnet20", "cifar10")
    page.goto(f"{stage.url}{PATH}?unit={UNIT}{query}")
    expect(page.locator("#curves .main-svg").first).to_be_visible()


def marks(page: Page) -> list[JSON]:
    """Fill and line of the marks of the chart, as computed."""
    return page.evaluate(
        "[...document.querySelectorAll('#curves .points path')].map((path) => {"
        "  const style = getComputedStyle(path);"
        "  return { fill: style.fill, stroke: style.stroke }; })"
    )


def curve_widths(page: Page) -> list[float]:
    """Of the curves in the colour of the selection; an interval is a line of one piece."""
    return page.evaluate(
        "[...document.querySelectorAll('#curves .js-line')]"
        ".filter((line) => line.style.stroke === 'rgb(43, 79, 212)')"
        ".filter((line) => line.getAttribute('d').split('L').length > 2)"
        ".map((line) => parseFloat(line.style.strokeWidth))"
    )


def test_the_second_criterion_is_thinner_and_open_in_the_same_colour(
    page: Page, stage: Stage
) -> None:
    open_page(page, stage, explore_state(both(), names=NAMES, criteria=BOTH, status="done"))
    alone = marks(page)
    assert len(alone) == len(GRID)
    accent = alone[0]["fill"]
    page.get_by_label("over it").select_option("fisher")
    settle(page)
    together = marks(page)
    assert len(together) == 2 * len(GRID)
    hollow = [mark for mark in together if mark["fill"] != accent]
    assert len(hollow) == len(GRID)
    assert {mark["stroke"] for mark in hollow} == {accent}
    second, first = sorted(curve_widths(page))
    assert second < first
    expect(page.locator("#curves .annotation-text").filter(has_text="fisher")).to_be_visible()
    field = page.get_by_label(f"Sparsity of {UNIT} in percent")
    field.fill("50")
    expected = point(UNIT, 0.5, SPLIT, "fisher")["accuracy"]
    expect(page.locator("#readout")).to_contain_text(f"fisher: {100 * expected:.1f}")
    page.wait_for_timeout(400)
    assert "compare=fisher" in page.url
    page.reload()
    expect(page.get_by_label("over it")).to_have_value("fisher")
    assert len(marks(page)) == 2 * len(GRID)
    accessible(page)


def test_the_plan_is_made_by_the_chosen_criterion(page: Page, stage: Stage) -> None:
    made: list[JSON] = []

    def plan(body: JSON) -> JSON:
        made.append(body)
        return body | {"id": len(made), "name": "", "predicted": {}, "measurements": []}

    stage.answers["/api/plans"] = plan
    for number in (1, 2):
        job = {"id": 20 + number, "kind": "measure", "state": "queued"}
        stage.answers[f"/api/plans/{number}/measure"] = job
        stage.answers[f"/api/jobs/{20 + number}"] = job | {"state": "cancelled"}
    open_page(page, stage, explore_state(both(), names=NAMES, criteria=BOTH, status="done"))
    page.get_by_label(f"Sparsity of {UNIT} in percent").fill("60")
    settle(page)
    first = page.locator("#k-pred").text_content()
    page.get_by_label("Criterion", exact=True).select_option("fisher")
    expect(page.locator("#k-pred")).not_to_have_text(first or "")
    expected = point(UNIT, 0.6, SPLIT, "fisher")["accuracy"]
    expect(page.locator("#readout")).to_contain_text(f"60\u202f% removed → {100 * expected:.1f}")
    page.locator("#measure").click()
    expect(page.locator("#toasts")).to_contain_text("cancelled")
    assert made[0]["criterion"] == "fisher"
    page.wait_for_timeout(400)
    assert "criterion=fisher" in page.url
    # The same thresholds by the other criterion are another plan.
    page.get_by_label("Criterion", exact=True).select_option("magnitude")
    with page.expect_response("**/plans/2/measure"):
        page.locator("#measure").click()
    assert made[1]["criterion"] == "magnitude"


def comparison() -> JSON:
    items = []
    for unit in NAMES[:-1]:
        for sparsity in GRID:
            drops = {c: point(unit, sparsity, SPLIT, c)["drop"] for c in BOTH}
            best, other = sorted(drops, key=lambda c: drops[c])
            ahead = drops[other] - drops[best]
            items.append({
                "unit": unit, "sparsity": sparsity, "best": best, "runner_up": other,
                "difference": ahead, "low": ahead - 0.01, "high": ahead + 0.01, "p": 0.2,
                "samples": SPLIT, "significant": ahead > 0.01,
            })  # fmt: skip
    units = [
        {"unit": unit, "best": "fisher", "significant": unit == NAMES[0], "levels": len(GRID),
         "drops": {"fisher": 0.1, "magnitude": 0.125}}
        for unit in NAMES[:-1]
    ]  # fmt: skip
    return {"items": items, "units": units}


def test_best_per_layer_tells_a_difference_from_noise(page: Page, stage: Stage) -> None:
    found = comparison()
    stage.answers[f"/api{PATH}/comparison"] = found
    state = explore_state(both(), names=NAMES, criteria=BOTH, status="done")
    open_page(page, stage, state, f"&t=0,62{',0' * (len(NAMES) - 2)}")
    page.get_by_role("tab", name="Best per layer").focus()
    page.keyboard.press("Enter")
    rows = page.locator("#best-body tr")
    expect(rows).to_have_count(len(NAMES))
    # At the plan's thresholds: the nearest level that was compared; nothing removed, nothing said.
    mine = rows.nth(1)
    item = next(e for e in found["items"] if e["unit"] == UNIT and e["sparsity"] == 0.6)
    expect(mine.locator("td")).to_have_text([
        "60", item["best"], item["runner_up"],
        f"{100 * item['difference']:.1f} ±\u202f1.0\u202fpp",
        "clear" if item["significant"] else "within noise",
    ])  # fmt: skip
    expect(rows.nth(0)).to_contain_text("nothing removed")
    page.get_by_label("At", exact=True).select_option("0.8")
    for row, unit in zip(rows.all()[:-1], NAMES, strict=False):
        item = next(e for e in found["items"] if e["unit"] == unit and e["sparsity"] == 0.8)
        verdict = "clear" if item["significant"] else "within noise"
        expect(row.locator("td").last).to_have_text(verdict)
        expect(row.locator("td").nth(1)).to_have_text(item["best"])
    verdicts = rows.locator(".chip").all_text_contents()
    assert {"clear", "within noise"} == set(verdicts)
    expect(rows.last).to_contain_text("not measured with two criteria yet")
    page.get_by_label("At", exact=True).select_option("all")
    expect(rows.nth(0).locator("td")).to_have_text(
        ["19 levels", "fisher", "magnitude", "2.5\u202fpp", "clear"]
    )
    # By keyboard: the table scrolls, and its rows select.
    page.get_by_role("group", name="Best criterion per layer").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#layers tr[aria-current=true]")).to_have_attribute("data-unit", NAMES[2])
    accessible(page)


def test_new_points_are_compared_again(page: Page, stage: Stage) -> None:
    stage.answers[f"/api{PATH}/comparison"] = {"items": [], "units": []}
    state = explore_state(both(640), names=NAMES, criteria=BOTH)
    open_page(page, stage, state, "&t=40*10")
    page.get_by_role("tab", name="Best per layer").click()
    expect(page.locator("#best-say")).to_contain_text("No layer is measured with two criteria")
    stage.answers[f"/api{PATH}/comparison"] = comparison()
    told = {"unit": UNIT, "criterion": "fisher", **point(UNIT, 0.4, SPLIT, "fisher")}
    stage.tell("points", {"points": [told]})
    expect(page.locator("#best-body .chip").first).to_be_visible()


def test_a_single_criterion_has_nothing_to_compare(page: Page, stage: Stage) -> None:
    points = {(u, "magnitude"): [point(u, s, SPLIT) for s in GRID] for u in NAMES}
    open_page(page, stage, explore_state(points, names=NAMES, status="done"))
    expect(page.get_by_role("tab", name="Best per layer")).to_have_count(0)
    expect(page.get_by_label("Criterion", exact=True)).to_have_count(0)


def classes(pruned: list[int], samples: int = 100, dense: list[int] | None = None) -> list[JSON]:
    names = ["bird", "<i>cat</i>", None]
    return [
        {"class": i, "name": names[i], "samples": samples, "dense": dense[i] if dense else None,
         "pruned": right, "dense_samples": 1000, "dense_right": 900}
        for i, right in enumerate(pruned)
    ]  # fmt: skip


def test_the_classes_that_lose_most_come_first(page: Page, stage: Stage) -> None:
    stage.answers[f"/api{PATH}/point"] = {"classes": classes([88, 40, 95], dense=[90, 92, 94])}
    state = explore_state(both(), names=NAMES, criteria=BOTH, status="done")
    open_page(page, stage, state, f"&t=0,62{',0' * (len(NAMES) - 2)}")
    page.get_by_role("tab", name="Per class").click()
    expect(page.locator("#classes-say")).to_contain_text(
        "60\u202f% removed, the measured level nearest to the threshold: 2 of 3 classes lose"
    )
    rows = page.locator("#classes-body tr")
    expect(rows.locator("th")).to_have_text(["<i>cat</i>", "bird", "2"])
    expect(rows.nth(0).locator("td")).to_have_text(["100", "92.0", "40.0", "−52.0\u202fpp", ""])
    expect(rows.nth(2)).to_contain_text("+1.0\u202fpp")
    expect(rows.locator(".bars i")).to_have_count(2)
    assert page.locator("#classes-body i i, #classes-body th i").count() == 0
    # Another threshold, another question.
    page.get_by_label(f"Sparsity of {UNIT} in percent").fill("0")
    expect(page.locator("#classes-say")).to_contain_text("Nothing is removed from this layer")
    expect(page.locator("#classes")).to_be_hidden()
    accessible(page)


def test_a_part_of_the_split_is_not_held_against_all_of_it(page: Page, stage: Stage) -> None:
    stage.answers[f"/api{PATH}/point"] = {"classes": classes([18, 9, 15], samples=20)}
    state = explore_state(both(640), names=NAMES, criteria=BOTH, status="done")
    open_page(page, stage, state, "&t=60*10")
    page.get_by_role("tab", name="Per class").click()
    expect(page.locator("#classes-say")).to_contain_text("can’t be held against dense")
    for row in page.locator("#classes-body tr").all():
        # Its share on all samples beside one on the hard ones would look like a loss.
        expect(row.locator("td").nth(1)).to_have_text("–")
        expect(row.locator("td").nth(3)).to_have_text("–")
    expect(page.locator("#classes-body .bars i")).to_have_count(0)


def test_errors_are_not_lost_but_rise(page: Page, stage: Stage) -> None:
    points = {(u, "magnitude"): [point(u, s, SPLIT) for s in GRID] for u in NAMES}
    figures = {"value": 0.5, "low": 0.48, "high": 0.52}
    for listed in points.values():
        for each in listed:
            rise = {name: value * (1 + each["drop"]) for name, value in figures.items()}
            each |= {"accuracy": None, "metrics": {"mse": rise}}
    state = explore_state(points, names=NAMES, status="done", kind=Kind.REGRESSION)
    state["analysis"]["baseline"] |= {"accuracy": None, "metrics": {"mse": figures}}
    open_page(page, stage, state)
    expect(page.locator("#v-curves h3")).to_have_text("Rise by layer")
    page.get_by_role("tab", name="Heatmap").click()
    expect(page.locator("#v-heat h3")).to_have_text("Rise by layer")
    expect(page.locator("#heat-large")).to_have_attribute("aria-label", "Rise by layer")
