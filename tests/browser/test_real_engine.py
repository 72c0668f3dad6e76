"""The engine on the page: a real server, a real worker, a real network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from app.client import Client
from tests.browser.looking import accessible
from tests.browser.many_digits import TUNE, write_dead, write_many
from tests.support.live import LiveServer, finished, live_server, until
from tests.support.sample import Sample

pytestmark = [pytest.mark.browser, pytest.mark.slow]

UNIT = "block2.first.conv.weight"
DEAD = "block1.second.conv.weight"
GRID = [0.2, 0.4, 0.6, 0.7, 0.8, 0.9]


@pytest.fixture(scope="module")
def installed(
    tmp_path_factory: pytest.TempPathFactory, sample: Sample
) -> Iterator[tuple[LiveServer, Client, int, int]]:
    """A server with one worker that has read the network and the large data set."""
    folder = tmp_path_factory.mktemp("engine")
    model, data = write_many(sample, folder)
    with live_server(folder / "data") as server, server.client() as client:
        model_id, dataset_id = client.upload("models", model), client.upload("datasets", data)
        client.wait_ready("models", model_id)
        client.wait_ready("datasets", dataset_id)
        yield server, client, model_id, dataset_id


@pytest.fixture
def start(installed: tuple[LiveServer, Client, int, int], context: BrowserContext) -> Any:
    """Start an analysis; returns its id."""
    server, client, model_id, dataset_id = installed
    tab = context.new_page()
    tab.goto(server.link)
    tab.close()

    def started(**body: Any) -> int:
        asked = {"model_id": model_id, "dataset_id": dataset_id, "sparsities": GRID} | body
        return client.call("POST", "/api/analyses", json=asked)["id"]

    return started


def table(page: Page) -> list[str]:
    if page.locator("#numbers").get_attribute("open") is None:
        page.locator("#numbers summary").click()
    expect(page.locator("#numbers-body tr").first).to_be_visible()
    return page.locator("#numbers-body tr").all_inner_texts()


def units_of(page: Page) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('#layers tr')].map((r) => r.dataset.unit)")


def points_of(client: Client, analysis_id: int) -> dict[tuple[str, float], dict[str, Any]]:
    curves = client.call("GET", f"/api/analyses/{analysis_id}")["curves"]
    return {(c["unit"], p["sparsity"]): p for c in curves for p in c["points"]}


def test_curves_get_sharper_in_place_until_they_are_exact(
    page: Page, start: Any, installed: tuple[LiveServer, Client, int, int]
) -> None:
    server, client, _, _ = installed
    analysis_id = start()
    address = f"{server.url}/analyses/{analysis_id}"
    page.goto(f"{address}?unit={UNIT}")
    expect(page.locator("#curves .points path")).to_have_count(len(GRID))
    expect(page.locator("#run-status")).to_be_hidden(timeout=90_000)
    # Told again and again, yet one mark a level.
    expect(page.locator("#curves .points path")).to_have_count(len(GRID))
    before = points_of(client, analysis_id)
    assert any(32 < point["samples"] < TUNE for point in before.values())
    expect(page.locator("#precision-say")).to_contain_text("on a part")

    shown = table(page)
    for sparsity in GRID:
        point = before[UNIT, sparsity]
        line = next(row for row in shown if row.split()[0] == f"{100 * sparsity:.0f}")
        assert f"{100 * point['accuracy']:.1f}" in line
        rest = shown[shown.index(line) + 1]
        whole = f"all {TUNE:,}" if point["whole"] else f"{point['samples']:,} of {TUNE:,}"
        assert whole in rest
    page.reload()
    assert table(page) == shown

    # Sharper for one layer: that one, and no other.
    page.locator("#sharpen").click()
    dialog = page.locator("#sharpen-dialog")
    dialog.get_by_label("To", exact=True).fill("0.4")
    dialog.get_by_role("button", name="Sharpen").click()
    expect(dialog).to_be_hidden()
    finished(client, f"/api/analyses/{analysis_id}")
    after = points_of(client, analysis_id)
    for (unit, sparsity), point in after.items():
        old = before[unit, sparsity]
        if unit == UNIT:
            half = (point["drop_high"] - point["drop_low"]) / 2
            assert point["whole"] or half <= 0.004
            assert point["samples"] >= old["samples"]
        else:
            assert point == old
    assert any(after[UNIT, s]["samples"] > before[UNIT, s]["samples"] for s in GRID)
    expect(page.locator("#run-status")).to_be_hidden(timeout=60_000)
    sharper = table(page)
    assert sharper != shown
    assert len(sharper) == len(shown)

    page.get_by_role("button", name="Make exact").click()
    expect(page.locator("#exact-cost")).to_contain_text("Every point is exact", timeout=90_000)
    assert all(point["whole"] for point in points_of(client, analysis_id).values())
    rests = page.locator("#numbers-body tr.rests")
    expect(rests.filter(has_text=f"all {TUNE:,} samples")).to_have_count(len(GRID))
    expect(page.locator("#curves .xtitle")).to_contain_text("band: 95 % interval")
    expect(page.get_by_role("button", name="Sharpen…")).to_be_disabled()
    accessible(page)


def test_a_paused_analysis_rests_and_goes_on(
    page: Page, start: Any, installed: tuple[LiveServer, Client, int, int]
) -> None:
    server, client, _, _ = installed
    grid = [step / 30 for step in range(1, 30)]
    analysis_id = start(evaluation={"mode": "exact"}, sparsities=grid, criteria=["random"])
    page.goto(f"{server.url}/analyses/{analysis_id}?unit={UNIT}")
    expect(page.locator("#run-word")).to_have_text("running")
    expect(page.locator("#run-share")).not_to_have_text("0\u202f%", timeout=60_000)
    page.get_by_label("Pause the analysis").click()
    expect(page.locator("#run-word")).to_have_text("paused")
    job = client.call("GET", f"/api/analyses/{analysis_id}")["job_id"]
    until(lambda: client.call("GET", f"/api/jobs/{job}")["state"] == "queued", seconds=10)
    assert client.call("GET", f"/api/jobs/{job}")["paused"]
    kept = points_of(client, analysis_id)
    assert kept
    page.reload()
    expect(page.locator("#run-word")).to_have_text("paused")
    page.wait_for_timeout(1000)
    assert points_of(client, analysis_id) == kept

    page.goto(f"{server.url}/jobs")
    row = page.locator(f"tr[data-job='{job}']")
    expect(row.locator("[data-state=paused]")).to_be_visible()
    row.get_by_role("button", name="high").press("Enter")
    expect(row.get_by_role("button", name="high")).to_have_attribute("aria-pressed", "true")
    accessible(page)
    row.get_by_label(re.compile("^Resume")).press("Enter")
    expect(row.locator("[data-state=paused]")).to_have_count(0)
    finished(client, f"/api/analyses/{analysis_id}", seconds=240)
    done = points_of(client, analysis_id)
    assert all(done[key] == point for key, point in kept.items() if point["whole"])
    assert all(point["whole"] for point in done.values())


def test_two_criteria_over_each_other_and_the_best_of_each_layer(
    page: Page, start: Any, installed: tuple[LiveServer, Client, int, int]
) -> None:
    server, client, _, _ = installed
    analysis_id = start(criteria=["magnitude", "fisher"])
    finished(client, f"/api/analyses/{analysis_id}")
    thresholds = ",".join(["80"] * 7)
    page.goto(f"{server.url}/analyses/{analysis_id}?unit={UNIT}&compare=fisher&t={thresholds}")
    expect(page.locator("#curves .points path")).to_have_count(2 * len(GRID))
    # The page predicts from parts of the split what the server predicts.
    body = {"analysis_id": analysis_id, "sparsities": dict.fromkeys(units_of(page), 0.8)}
    predicted = client.call("POST", "/api/plans", json=body)["predicted"]
    expect(page.locator("#k-pred")).to_have_text(f"{100 * predicted['accuracy']:.1f}")
    half = max(predicted["high"] - predicted["accuracy"], predicted["accuracy"] - predicted["low"])
    expect(page.locator("#k-pred-s")).to_contain_text(f"{100 * half:.1f}")
    page.get_by_role("tab", name="Best per layer").click()
    items = client.call("GET", f"/api/analyses/{analysis_id}/comparison")["items"]
    at = {item["unit"]: item for item in items if item["sparsity"] == 0.8}
    rows = page.locator("#best-body tr")
    expect(rows).to_have_count(7)
    for row in rows.all():
        item = at[row.get_attribute("data-unit") or ""]
        expect(row.locator("td").nth(1)).to_have_text(item["best"])
        ahead = f"{100 * item['difference']:.1f} ±".replace("-", "−")
        expect(row.locator("td").nth(3)).to_contain_text(ahead)
        verdict = "clear" if item["significant"] else "within noise"
        expect(row.locator("td").last).to_have_text(verdict)
    accessible(page)

    page.get_by_role("tab", name="Per class").click()
    expect(page.locator("#classes-body tr")).to_have_count(10)
    query = f"unit={UNIT}&criterion=magnitude&sparsity=0.8"
    point = client.call("GET", f"/api/analyses/{analysis_id}/point?{query}")
    assert sum(each["samples"] for each in point["classes"]) == point["samples"]
    seen = {row.split()[0]: row.split()[1] for row in
            page.locator("#classes-body tr").all_inner_texts()}  # fmt: skip
    assert seen == {
        str(each["name"] or each["class"]): f"{each['samples']:,}" for each in point["classes"]
    }


def test_a_dead_layer_says_so(
    page: Page,
    start: Any,
    installed: tuple[LiveServer, Client, int, int],
    sample: Sample,
    tmp_path: Path,
) -> None:
    server, client, _, _ = installed
    model_id = client.upload("models", write_dead(sample, tmp_path))
    client.wait_ready("models", model_id)
    analysis_id = start(model_id=model_id)
    found = finished(client, f"/api/analyses/{analysis_id}")
    (remark,) = found["remarks"]
    assert remark["unit"] == DEAD
    page.goto(f"{server.url}/analyses/{analysis_id}?unit={DEAD}")
    expect(page.locator(f"tr[data-unit='{DEAD}'] .chip")).to_have_text(remark["reason"])
    expect(page.locator("#readout")).to_contain_text(remark["reason"])
    expect(page.locator("#readout")).not_to_contain_text("holds")
    expect(page.locator("#heat .remarks")).to_contain_text(remark["reason"])
    expect(page.locator("tr[data-unit='head.weight'] .chip")).not_to_contain_text("of 6")
    accessible(page)
