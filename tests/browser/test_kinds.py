"""Explore and experiment pages of networks that are not judged by accuracy."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from app.domain.metrics import METRICS, Kind
from app.store.tables import Baseline
from tests.browser.looking import accessible, settle
from tests.contract.kinds import (
    analysed_kind,
    figures,
    finish_kind_measurement,
    harm_at,
)
from tests.contract.site import Site

pytestmark = pytest.mark.browser


def value_at(kind: Kind, name: str, unit: str, sparsity: float) -> float:
    return figures(kind, harm_at(unit, round(sparsity * 1e6)))[name]["value"]


def heights(page: Page) -> list[float]:
    """Pixel heights of the marks of the selected curve, left to right, growing downwards."""
    return page.evaluate(
        "[...document.querySelectorAll('#curves .points path')].map("
        "(path) => path.getBoundingClientRect().top)"
    )


def colours(page: Page) -> list[str]:
    """The cells of each class of the heat map."""
    return page.evaluate(
        "[...document.querySelectorAll('#heat [class^=loss-]')].map((p) => p.getAttribute('d'))"
    )


def test_errors_rise_and_are_numbers(page: Page, site: Site) -> None:
    analysis_id = analysed_kind(site, Kind.REGRESSION)
    page.goto(f"{site.url}/analyses/{analysis_id}?unit=head.weight&t=0,0,40")
    expect(page.locator("#metric")).to_have_value("mse")
    expect(page.locator("#metric option")).to_have_text(
        ["Mean squared error", "Mean absolute error", "R²", "Loss"]
    )
    expect(page.locator("#metric-note")).to_have_text("less is better")
    expect(page.locator("#k-pred-name")).to_have_text("Mean squared error")
    expect(page.locator("#k-pred-unit")).to_have_text("")
    wanted = value_at(Kind.REGRESSION, "mse", "head.weight", 0.4)
    expect(page.locator("#k-pred")).to_have_text(f"{wanted:#.4g}")
    expect(page.locator("#k-pred-d")).to_have_text(f"+{100 * (wanted / 0.5 - 1):.1f}\u202f%")
    expect(page.locator("#k-pred-s")).to_contain_text("±")
    expect(page.locator("#readout")).to_contain_text("removed → " + f"{wanted:#.4g}")
    expect(page.locator("#tolerance-label")).to_have_text("Tolerated rise per layer")
    expect(page.locator("#tolerance-unit")).to_have_text("%")
    expect(page.locator("#curves")).to_contain_text("tolerated 0.5250")
    expect(page.locator("#curves")).to_contain_text("band: 95 % interval")
    marks = heights(page)
    assert len(marks) == 4
    assert marks == sorted(marks, reverse=True)
    # Nothing on the page still speaks of accuracy: there is none.
    visible = page.locator("body").inner_text().lower()
    assert "accuracy" not in visible
    assert "nan" not in re.findall(r"\w+", visible)
    accessible(page)


def test_a_chosen_metric_redraws_everything_and_is_in_the_address(page: Page, site: Site) -> None:
    analysis_id = analysed_kind(site, Kind.REGRESSION)
    page.goto(f"{site.url}/analyses/{analysis_id}?unit=head.weight&t=0,0,40")
    heat = colours(page)
    page.locator("#metric").focus()
    page.keyboard.press("r")
    expect(page.locator("#metric")).to_have_value("r2")
    wanted = value_at(Kind.REGRESSION, "r2", "head.weight", 0.4)
    expect(page.locator("#k-pred")).to_have_text(f"{wanted:#.4g}")
    expect(page.locator("#k-pred-d")).to_have_text(f"−{0.8 - wanted:#.3g}")
    expect(page.locator("#k-pred-s")).to_have_text("estimate")
    expect(page.locator("#curves .xtitle")).to_contain_text("no interval for this metric")
    assert page.locator("body").inner_text().count("no interval for this metric") == 1
    expect(page.locator("#tolerance-label")).to_have_text("Tolerated drop per layer")
    expect(page.locator("#tolerance")).to_have_value("0.01")
    expect(page.locator("#curves")).to_contain_text("tolerated 0.7900")
    assert heights(page) == sorted(heights(page))
    assert colours(page) != heat
    page.wait_for_timeout(500)
    assert "metric=r2" in page.url
    page.reload()
    expect(page.locator("#metric")).to_have_value("r2")
    expect(page.locator("#k-pred")).to_have_text(f"{wanted:#.4g}")
    page.locator("#metric").select_option("mse")
    page.wait_for_timeout(500)
    assert "metric=" not in page.url
    page.goto(f"{site.url}/analyses/{analysis_id}?metric=nonsense")
    expect(page.locator("#metric")).to_have_value("mse")


def test_measured_and_predicted_are_in_the_chosen_metric(page: Page, site: Site) -> None:
    analysis_id = analysed_kind(site, Kind.REGRESSION)
    page.goto(f"{site.url}/analyses/{analysis_id}?t=20,20,20")
    with page.expect_response("**/measure"):
        page.locator("#measure").click()
    finish_kind_measurement(site, Kind.REGRESSION)
    expect(page.locator("#k-meas-v")).to_have_text("0.7000")
    expect(page.locator("#k-meas-d")).to_have_text("+40.0\u202f%")
    expect(page.locator("#k-meas-s")).to_contain_text("[0.690, 0.710]")
    expect(page.locator("#hist td").last).to_have_text("0.7000")
    page.locator("#metric").select_option("r2")
    expect(page.locator("#k-meas-v")).to_have_text("0.6000")
    expect(page.locator("#k-meas-d")).to_have_text("−0.200")
    expect(page.locator("#k-meas-s")).not_to_contain_text("[")
    expect(page.locator("#hist td").last).to_have_text("0.6000")
    expect(page.locator("#forest svg")).to_have_attribute(
        "aria-label", re.compile(r"R².*measured 0\.6000, baseline 0\.8000$")
    )


def test_the_knees_of_errors_stay_inside_what_is_tolerated(page: Page, site: Site) -> None:
    analysis_id = analysed_kind(site, Kind.REGRESSION)
    page.goto(f"{site.url}/analyses/{analysis_id}?tol=20")
    expect(page.locator("#tolerance")).to_have_value("20")
    page.get_by_role("button", name="Start from the knees").click()
    settle(page)
    grid = [0.0, 0.2, 0.4, 0.6, 0.8]
    for unit in ("conv.weight", "hidden.weight", "head.weight"):
        values = [value_at(Kind.REGRESSION, "mse", unit, s) for s in grid]
        at = float(page.get_by_label(f"Sparsity of {unit} in percent").input_value()) / 100

        def error(sparsity: float, values: list[float] = values) -> float:
            left = min(int(sparsity / 0.2), 3)
            share = (sparsity - grid[left]) / 0.2
            return values[left] + share * (values[left + 1] - values[left])

        assert error(at) <= 0.6 + 1e-9
        assert error(at + 0.01) > 0.6


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_can_be_read_in_each_of_its_metrics(page: Page, site: Site, kind: Kind) -> None:
    analysis_id = analysed_kind(site, kind)
    page.goto(f"{site.url}/analyses/{analysis_id}?t=20,20,20")
    for metric in METRICS[kind]:
        page.locator("#metric").select_option(metric.name)
        expect(page.locator("#k-pred-name")).to_have_text(metric.label)
        expect(page.locator("#k-pred-unit")).to_have_text("%" if metric.fraction else "")
        settle(page)
        marks = heights(page)
        # Worse is lower where more is better, and higher where less is.
        assert marks == sorted(marks, reverse=not metric.higher_is_better)
        note = "less is better" if not metric.higher_is_better else ""
        expect(page.locator("#metric-note")).to_have_text(note)


def test_a_metric_that_is_not_defined_can_not_be_chosen(page: Page, site: Site) -> None:
    analysis_id = analysed_kind(site, Kind.SINGLE_LABEL)
    with site.store.write() as session:
        row = session.get_one(Baseline, "kinds")
        row.metrics = {**row.metrics, "top5": {"value": None, "low": None, "high": None}}
    page.goto(f"{site.url}/analyses/{analysis_id}?metric=top5")
    expect(page.locator("#metric option")).to_have_text(["Accuracy", "Macro F1", "AUROC", "Loss"])
    expect(page.locator("#metric")).to_have_value("accuracy")


def test_the_first_page_shows_the_primary_metric(page: Page, site: Site) -> None:
    analysed_kind(site, Kind.LANGUAGE_MODELLING)
    page.goto(site.url)
    row = page.locator("tr[data-analysis]")
    expect(row).to_contain_text("perplexity 20.00")
    path = row.locator(".mini path").first.get_attribute("d") or ""
    ends = [float(y) for _, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]
    assert ends[0] > ends[-1]


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1280, 800), (820, 900), (390, 844)])
def test_nothing_sticks_out_of_the_page(page: Page, site: Site, width: int, height: int) -> None:
    page.set_viewport_size({"width": width, "height": height})
    analysis_id = analysed_kind(site, Kind.REGRESSION)
    page.goto(f"{site.url}/analyses/{analysis_id}?t=20,20,20")
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator("#metric").bounding_box()
    assert box
    assert box["width"] >= 100
    bar = page.locator(".p-view > .bar")
    assert bar.evaluate("(bar) => bar.scrollWidth - bar.clientWidth") <= 0
