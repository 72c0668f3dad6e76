"""Points that are known from a part of the split: how they look, and how they get sharper.

The states are written by hand (`shapes`): a real worker passes through them too fast to look.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.looking import accessible, settle
from tests.browser.shapes import GRID, JSON, SPLIT, explore_state, layer_names, point
from tests.browser.stage import Stage

pytestmark = pytest.mark.browser

NAMES = layer_names(1)
UNIT = NAMES[1]
PATH = "/analyses/3"


def told(unit: str, sparsity: float, samples: int, criterion: str = "magnitude") -> JSON:
    return {"unit": unit, "criterion": criterion, **point(unit, sparsity, samples, criterion)}


def all_at(samples: int, criterion: str = "magnitude") -> dict[tuple[str, str], list[JSON]]:
    return {(u, criterion): [point(u, s, samples, criterion) for s in GRID] for u in NAMES}


def open_page(page: Page, stage: Stage, state: JSON, query: str = "") -> None:
    stage.show(PATH, "explore.html", state, "resnet20", "cifar10")
    page.goto(f"{stage.url}{PATH}?unit={UNIT}{query}")
    expect(page.locator("#curves .main-svg").first).to_be_visible()


def widths(page: Page) -> list[float]:
    """Of the marks of the selected curve, left to right, in pixels."""
    return page.evaluate(
        "[...document.querySelectorAll('#curves .points path')].map((path) => {"
        "  const line = getComputedStyle(path).strokeWidth; path.style.strokeWidth = '0px';"
        "  const width = path.getBoundingClientRect().width; path.style.strokeWidth = line;"
        "  return width; })"
    )


def opacities(page: Page) -> list[float]:
    return page.evaluate(
        "[...document.querySelectorAll('#curves .points path')].map((path) => "
        "Number(getComputedStyle(path).fillOpacity))"
    )


def attributes(selector: str, name: str) -> str:
    """A script for the values of an attribute in the chart."""
    found = f"[...document.querySelectorAll('#curves {selector}')]"
    return f"{found}.map((element) => element.getAttribute('{name}'))"


def test_previews_are_small_faint_and_say_so(page: Page, stage: Stage) -> None:
    open_page(page, stage, explore_state(all_at(32), names=NAMES), "&t=0,40*9")
    assert max(widths(page)) < 5
    assert max(opacities(page)) < 0.6
    expect(
        page.locator("#curves .annotation-text").filter(has_text="preview, 32 samples")
    ).to_be_visible()
    expect(page.locator("#readout")).to_contain_text("preview, 32 of 10,000 samples")
    # Nothing is concluded from so little.
    for claim in ("holds", "knee", "collapse", "falls"):
        expect(page.locator("#readout")).not_to_contain_text(claim)
    expect(page.locator(f"tr[data-unit='{UNIT}'] .chip")).to_have_text("preview")
    expect(page.locator("#v-curves [data-key=preview]")).to_be_visible()
    expect(page.locator("#precision-say")).to_contain_text(f"{len(NAMES) * len(GRID)} previews")
    accessible(page)


@pytest.mark.parametrize(
    ("arithmetic", "words"),
    [
        (None, None),
        (
            {"used": "bfloat16", "reason": None, "answers": 1024, "differing": 3},
            "bf16 changes 3 of 1,024 answers (0.29\u202f%) of the intact network.",
        ),
        (
            {"used": "bfloat16", "reason": None, "answers": 0, "differing": None,
             "loss": 0.25049, "loss_float32": 0.25051},
            "bf16: the intact network's loss is 0.2505, in float32 0.2505.",
        ),
        (
            {"used": "float32", "reason": "It has hooks.", "differing": None},
            "Computed in float32, not bf16: It has hooks.",
        ),
    ],
)  # fmt: skip
def test_what_bfloat16_changes_is_said(
    page: Page, stage: Stage, arithmetic: dict[str, Any] | None, words: str | None
) -> None:
    state = explore_state(all_at(640), names=NAMES)
    state["analysis"]["baseline"]["arithmetic"] = arithmetic
    open_page(page, stage, state)
    line = page.locator("#precision-arithmetic")
    if words is None:
        expect(line).to_be_hidden()
    else:
        expect(line).to_have_text(words)


def test_a_point_told_again_takes_the_place_of_the_old_one(page: Page, stage: Stage) -> None:
    open_page(page, stage, explore_state(all_at(32), names=NAMES), "&t=0,40*9")
    expect(page.locator("#curves .points path")).to_have_count(len(GRID))
    level = GRID.index(0.4)
    stage.tell("points", {"points": [told(UNIT, 0.4, 1536)]})
    expect(page.locator("#readout")).to_contain_text("1,536 of 10,000 samples")
    partial = point(UNIT, 0.4, 1536)
    expect(page.locator("#readout")).to_contain_text(f"{partial['accuracy'] * 100:.1f}")
    settle(page)
    page.wait_for_timeout(200)
    expect(page.locator("#curves .points path")).to_have_count(len(GRID))
    drawn = widths(page)
    assert drawn[level] > max(drawn[:level] + drawn[level + 1 :])

    # One with fewer samples comes too late and changes nothing.
    stage.tell("points", {"points": [told(UNIT, 0.4, 128), told(UNIT, 0.45, SPLIT)]})
    page.wait_for_timeout(300)
    expect(page.locator("#readout")).to_contain_text("1,536 of 10,000 samples")
    drawn = widths(page)
    assert drawn[level + 1] > drawn[level] > drawn[level - 1]
    assert opacities(page)[level + 1] == 1

    stage.tell("points", {"points": [told(UNIT, s, SPLIT) for s in GRID]})
    expect(page.locator("#readout")).not_to_contain_text("of 10,000 samples")
    expect(page.locator("#curves .xtitle")).to_contain_text("band: 95 % interval")


def test_every_number_says_what_it_rests_on(page: Page, stage: Stage) -> None:
    mixed = {(u, "magnitude"): [
        point(u, s, samples)
        for s, samples in zip(GRID, itertools.cycle((32, 640, SPLIT)), strict=False)
    ] for u in NAMES}  # fmt: skip
    state = explore_state(mixed, names=NAMES, evaluation={"confidence": 0.99})
    open_page(page, stage, state)
    page.locator("#numbers summary").click()
    rows = page.locator("#numbers-body tr.rests")
    expect(rows).to_have_count(len(GRID))
    expect(rows.nth(0)).to_contain_text("preview, 32 of 10,000 samples")
    expect(rows.nth(0)).to_contain_text("interval of the split’s figure, 99\u202f%")
    expect(rows.nth(1)).to_contain_text("640 of 10,000 samples")
    expect(rows.nth(1)).not_to_contain_text("preview")
    expect(rows.nth(2)).to_contain_text("all 10,000 samples, interval of the population, 99\u202f%")
    second = mixed[UNIT, "magnitude"][1]
    expect(rows.nth(1)).to_contain_text(f"KL {second['kl']:#.3g}, loss {second['loss']:#.3g}")
    figures = page.locator("#numbers-body tr.partial:not(.rests)").first
    expect(figures).to_contain_text(f"{100 * second['accuracy']:.1f}")
    expect(figures).to_contain_text(f"[{100 * second['low']:.1f}, {100 * second['high']:.1f}]")
    expect(figures.locator("td").last).to_have_text(str(second["flips"]))
    expect(page.locator("#curves .xtitle")).to_contain_text(
        "whiskers: of the split’s figure, 99\u202f%; band: of the population"
    )
    accessible(page)


def test_progress_is_in_points_and_samples(page: Page, stage: Stage) -> None:
    half = {key: listed[:10] for key, listed in all_at(640).items()}
    state = explore_state(half, names=NAMES)
    total = len(NAMES) * len(GRID)
    state["analysis"]["cells"]["known"] = 30
    open_page(page, stage, state)
    done = sum(len(listed) for listed in half.values())
    settled = sum(each["settled"] for listed in half.values() for each in listed)
    for place in ("#run-line", "#foot-points"):
        expect(page.locator(place)).to_contain_text(
            f"{done} of {total} points known, 30 from before"
        )
        expect(page.locator(place)).to_contain_text(f"{settled} of {total} settled")
        expect(page.locator(place)).to_contain_text("41,200 samples")
        expect(page.locator(place)).to_contain_text("12\u202fs left")
    progress = {"done": 90, "total": 180, "eta": 3.0, "samples": 50_000}
    stage.tell(
        "status", {"status": "running", "error": None, "progress": progress, "paused": False}
    )
    expect(page.locator("#run-share")).to_have_text("50\u202f%")
    expect(page.locator("#run-line")).to_contain_text("50,000 samples")
    expect(page.locator("#run-spoken")).to_have_text("Sensitivity analysis 50 per cent done.")


def test_a_page_that_missed_the_baseline_asks_for_it(page: Page, stage: Stage) -> None:
    known = explore_state(all_at(640), names=NAMES)
    early = explore_state({}, names=NAMES, status="queued")
    early["analysis"]["baseline"] = None
    stage.answers[f"/api{PATH}"] = known["analysis"]
    stage.show(PATH, "explore.html", early, "resnet20", "cifar10")
    page.goto(f"{stage.url}{PATH}?unit={UNIT}")
    expect(page.locator("#waiting")).to_be_visible()
    page.wait_for_function("document.readyState === 'complete'")
    while not stage.streams:
        page.wait_for_timeout(20)
    stage.tell("points", {"points": [told(UNIT, 0.4, 640)]})
    expect(page.locator("#waiting")).to_be_hidden()
    total = len(NAMES) * len(GRID)
    expect(page.locator("#foot-points")).to_contain_text(f"{total} of {total} points known")


def sharpened(state: JSON) -> Any:
    """An answer of the server: the analysis is queued again."""

    def answer(body: JSON) -> JSON:
        goal = {"units": None, "sparsities": None, "half_width": None, "exact": False, **body}
        return state["analysis"] | {"status": "queued", "goals": [goal]}

    return answer


def test_sharpen_asks_what_and_how_much(page: Page, stage: Stage) -> None:
    state = explore_state(all_at(640), names=NAMES, status="done")
    stage.answers[f"/api{PATH}/sharpen"] = sharpened(state)
    stage.answers[f"/api{PATH}"] = state["analysis"]
    open_page(page, stage, state, "&t=0,40,60*8")
    page.locator("#sharpen").click()
    dialog = page.locator("#sharpen-dialog")
    expect(dialog).to_contain_text(f"this layer, {UNIT.removesuffix('.weight')}")
    expect(dialog.locator("#sharpen-near")).to_have_text("30\u202f% to 70\u202f%")
    # Half of what the analysis was started with, to begin with.
    expect(dialog.get_by_label("To", exact=True)).to_have_value("0.5")

    # What it costs follows from the widths: for a quarter of one, 16 times as many samples.
    dialog.get_by_label("To", exact=True).fill("0.25")
    expected = 0
    for each in all_at(640)[UNIT, "magnitude"]:
        half = each["drop_high"] - each["drop"]
        needed = min(SPLIT, -(-each["samples"] * half**2 // 0.0025**2))
        expected += max(0, needed - each["samples"])
    said = page.locator("#sharpen-cost").text_content() or ""
    found = int(re.sub(r"\D", "", said.split(":")[1]))
    assert found == pytest.approx(expected, abs=len(GRID))
    accessible(page)

    dialog.get_by_label("To", exact=True).fill("-1")
    dialog.get_by_role("button", name="Sharpen").click()
    expect(dialog.get_by_role("alert")).to_contain_text("a number above 0")
    dialog.get_by_label("To", exact=True).fill("0.25")
    dialog.get_by_role("button", name="Sharpen").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#run-word")).to_have_text("waiting for a worker")

    for choice, exact in (
        ("all layers, round", False),
        ("everything", False),
        ("everything", True),
    ):
        page.locator("#sharpen").click()
        dialog.get_by_label(choice).check()
        dialog.get_by_label("or exact").set_checked(exact)
        dialog.get_by_role("button", name="Sharpen").click()
        expect(dialog).to_be_hidden()
    assert stage.posted(f"/api{PATH}/sharpen") == [
        {"units": [UNIT], "half_width": 0.0025},
        {"sparsities": [0.3, 0.7], "half_width": 0.0025},
        {"half_width": 0.0025},
        {"exact": True},
    ]


def test_exact_is_one_press_and_says_what_it_takes(page: Page, stage: Stage) -> None:
    state = explore_state(all_at(640), names=NAMES, status="done")
    stage.answers[f"/api{PATH}/sharpen"] = sharpened(state)
    stage.answers[f"/api{PATH}"] = state["analysis"]
    open_page(page, stage, state)
    cost = len(NAMES) * len(GRID) * (SPLIT - 640)
    expect(page.locator("#exact-cost")).to_have_text(
        f"Exact takes {cost:,} more sample evaluations."
    )
    page.get_by_role("button", name="Make exact").click()
    expect(page.locator("#toasts")).to_contain_text("Making every point exact.")
    assert stage.posted(f"/api{PATH}/sharpen") == [{"exact": True}]
    every = [told(u, s, SPLIT) for u in NAMES for s in GRID]
    stage.tell("points", {"points": every})
    expect(page.locator("#exact-cost")).to_contain_text("Every point is exact")
    expect(page.get_by_role("button", name="Make exact")).to_be_disabled()
    expect(page.get_by_role("button", name="Sharpen…")).to_be_disabled()


def test_pausing_and_resuming(page: Page, stage: Stage) -> None:
    state = explore_state(all_at(640), names=NAMES)
    job = {"id": 9, "kind": "analyse", "state": "running", "paused": True}
    stage.answers["/api/jobs/9/pause"] = job
    stage.answers["/api/jobs/9/resume"] = job | {"state": "queued", "paused": False}
    stage.answers[f"/api{PATH}"] = state["analysis"] | {"status": "queued", "paused": True}
    open_page(page, stage, state)
    page.get_by_label("Pause the analysis").click()
    expect(page.locator("#run-word")).to_have_text("paused")
    expect(page.locator("#run-spoken")).to_have_text("Sensitivity analysis paused.")
    status = {"status": "queued", "error": None, "progress": state["analysis"]["progress"]}
    stage.tell("status", {**status, "paused": True})
    expect(page.locator("#run-line")).to_contain_text("paused")
    expect(page.locator("#run-eta")).to_have_text("")
    accessible(page)
    # A page that is opened now knows as well.
    state["analysis"] |= {"status": "queued", "paused": True}
    page.reload()
    expect(page.locator("#run-word")).to_have_text("paused")
    resume = page.get_by_label("Resume the analysis")
    resume.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#run-word")).to_have_text("waiting for a worker")
    assert [path for method, path, _ in stage.asked if method == "POST"] == [
        "/api/jobs/9/pause",
        "/api/jobs/9/resume",
    ]


def test_what_is_odd_is_said_and_never_looks_robust(page: Page, stage: Stage) -> None:
    points = all_at(SPLIT)
    zero, broken, small = NAMES[0], NAMES[2], NAMES[3]
    points[zero, "magnitude"] = []
    bad = points[broken, "magnitude"][9]
    nothing = {"value": None, "low": None, "high": None}
    bad |= dict.fromkeys(("accuracy", "drop", "drop_low", "drop_high", "loss", "kl"))
    bad |= {"metrics": {"accuracy": nothing}, "remark": "Outputs are not numbers."}
    for each in points[small, "magnitude"]:
        each |= {"achieved": 0.0, "remark": "nothing removed"}
    state = explore_state(points, names=NAMES, status="done")
    reason = "Every entry is zero already."
    state["analysis"]["remarks"] = [{"unit": zero, "criterion": "magnitude", "reason": reason}]
    open_page(page, stage, state, "&sort=sensitivity")
    chip = lambda unit: page.locator(f"tr[data-unit='{unit}'] .chip")  # noqa: E731
    expect(chip(zero)).to_have_text(reason)
    expect(chip(broken)).to_have_text("Outputs are not numbers.")
    expect(chip(small)).to_have_text("nothing removed")
    expect(page.locator("#heat .remarks")).to_contain_text(reason)
    # A layer without a curve is not the most sensitive one.
    expect(page.locator("#layers tr").last).to_have_attribute("data-unit", zero)
    for unit in (zero, small):
        page.locator(f"tr[data-unit='{unit}'] .lname").click()
        expect(page.locator("#readout")).not_to_contain_text("holds")
    # What lies beyond a broken point counts for nothing.
    page.locator(f"tr[data-unit='{broken}'] .lname").click()
    expect(page.locator("#readout")).to_contain_text("50\u202f%: Outputs are not numbers.")
    holds = re.search(r"holds −1\s*pp up to (\d+)", page.locator("#readout").inner_text())
    assert holds
    assert int(holds[1]) < 50
    page.locator(f"tr[data-unit='{zero}'] .lname").click()
    expect(page.locator("#readout")).to_contain_text(reason)
    page.locator("#numbers summary").click()
    expect(page.locator("#numbers-body")).to_contain_text(reason)
    page.locator(f"tr[data-unit='{small}'] .lname").click()
    expect(page.locator("#numbers-body tr").first).to_contain_text("nothing removed")
    page.locator(f"tr[data-unit='{broken}'] .lname").click()
    expect(page.locator("#numbers-body")).to_contain_text("Outputs are not numbers.")
    assert "NaN" not in page.locator("body").inner_text()
    accessible(page)


def test_a_fit_is_a_thin_line_beside_the_points(page: Page, stage: Stage) -> None:
    points = all_at(640)
    state = explore_state(points, names=NAMES, status="done")
    for curve in state["analysis"]["curves"]:
        rising = itertools.accumulate((p["drop"] for p in curve["points"]), max)
        curve["fit"] = [[s, d] for s, d in zip(GRID, rising, strict=True)]
    open_page(page, stage, state)
    lines, marks = attributes(".js-line", "d"), attributes(".points path", "transform")
    before, where = page.evaluate(lines), page.evaluate(marks)
    expect(page.locator("#fit")).not_to_be_checked()
    page.get_by_label("fit", exact=True).check()
    label = page.locator("#curves .annotation-text").filter(has_text=re.compile("^fit$"))
    expect(label).to_be_visible()
    after = page.evaluate(lines)
    assert len(after) == len(before) + 1
    # The points stay as they were measured, also where they don't only fall.
    assert page.evaluate(marks) == where
    (fit,) = set(after) - set(before)
    heights = [float(y) for y in re.findall(r",([\d.]+)", fit)]
    assert heights[1:] == sorted(heights[1:])
    page.wait_for_timeout(400)
    assert "fit=1" in page.url
    page.reload()
    expect(page.locator("#fit")).to_be_checked()


def test_knees_are_marked_where_they_were_asked_for(page: Page, stage: Stage) -> None:
    points = {(u, "magnitude"): [point(u, s, 512) for s in GRID[::3]] for u in NAMES}
    for listed in points.values():
        for each in listed:
            each["settled"] = True
    state = explore_state(points, names=NAMES, status="done", evaluation={"mode": "knee"})
    open_page(page, stage, state)
    knees = {}
    for unit in NAMES:
        good = itertools.takewhile(lambda p: p["drop"] <= 0.01, points[unit, "magnitude"])
        knees[unit] = ([None, *good])[-1]
    for unit, knee in knees.items():
        word = "no level" if knee is None else f"knee {100 * knee['sparsity']:.0f}\u202f%"
        expect(page.locator(f"tr[data-unit='{unit}'] .chip")).to_have_text(word)
    unit, knee = next((u, k) for u, k in knees.items() if k is not None)
    page.locator(f"tr[data-unit='{unit}'] .lname").click()
    half = knee["drop_high"] - knee["drop"]
    words = f"drop {100 * knee['drop']:.1f} ±\u202f{100 * half:.1f}\u202fpp".replace("-", "−")
    expect(page.locator("#readout")).to_contain_text(words)
    expect(page.locator("#curves .annotation-text").filter(has_text=words)).to_be_visible()
    ticks = "#layers tr.kneed"
    expect(page.locator(ticks)).to_have_count(sum(k is not None for k in knees.values()))
    accessible(page)


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1280, 800), (820, 900), (390, 844)])
def test_nothing_sticks_out_with_all_there_is(
    page: Page, stage: Stage, width: int, height: int
) -> None:
    page.set_viewport_size({"width": width, "height": height})
    points = all_at(640) | all_at(32, "fisher")
    state = explore_state(points, names=NAMES, criteria=["magnitude", "fisher"])
    open_page(page, stage, state, "&compare=fisher&t=40*9")
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    bar = page.locator(".p-view > .bar")
    assert bar.evaluate("(bar) => bar.scrollWidth - bar.clientWidth") <= 0
