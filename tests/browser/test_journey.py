"""The whole journey as a person makes it, from two files to a retrained checkpoint."""

from __future__ import annotations

import base64
import json
import re
from itertools import product
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect
from safetensors.torch import load_file

from tests.browser.looking import accessible, settle
from tests.support.live import LiveServer
from tests.support.sample import Sample
from worker.sample import DigitsNet

pytestmark = pytest.mark.browser

LAYER = "down.conv.weight"
FIRST = "block2.first.conv.weight"
SECOND = "block2.second.conv.weight"


def shown_percent(text: str | None) -> float:
    assert text is not None
    return float(re.sub(r"[^0-9.\-]", "", text.replace("−", "-")))


def set_threshold(page: Page, unit: str, percent: float) -> None:
    field = page.get_by_label(f"Sparsity of {unit} in percent")
    field.fill(str(percent))
    field.press("Enter")


def test_from_upload_to_a_checkpoint_that_keeps_its_word(
    page: Page, server: LiveServer, sample: Sample, tmp_path: Path
) -> None:
    # One click on the printed link signs in.
    page.goto(server.link)
    expect(page).to_have_url(f"{server.url}/")
    expect(page.get_by_role("heading", level=1)).to_contain_text("which weights")
    accessible(page)

    # Upload by button.
    page.locator("input[data-picker=model]").set_input_files(sample.model_path)
    page.locator("input[data-picker=dataset]").set_input_files(sample.dataset_path)
    analyse = page.get_by_role("button", name="Analyse", exact=True)
    expect(analyse).to_be_enabled()
    analyse.click()
    page.wait_for_url(re.compile(r"/analyses/\d+"))

    # The curves come by themselves.
    expect(page.locator("#foot-points")).to_contain_text("133 of 133", timeout=60_000)
    expect(page.locator("#curves .main-svg").first).to_be_visible()
    expect(page.locator("#run-status")).to_be_hidden()
    accessible(page)

    # Thresholds: by number, by the row's slider, by the handle on the chart.
    set_threshold(page, FIRST, 80)
    slider = page.get_by_label(f"Sparsity of {SECOND}", exact=True)
    slider.focus()
    for _ in range(3):
        slider.press("PageUp")
    page.locator(f"tr[data-unit='{LAYER}'] button.lname").click()
    handle = page.locator("#handle")
    expect(handle).to_be_visible()
    box = page.locator("#curves .cartesianlayer .xy").first.bounding_box()
    grip = handle.bounding_box()
    assert box
    assert grip
    page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 40, steps=5)
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60, steps=5)
    page.mouse.up()
    settle(page)
    percent = page.get_by_label(f"Sparsity of {LAYER} in percent")
    dragged = int(percent.input_value())
    assert 45 <= dragged <= 75
    handle.focus()
    handle.press("ArrowRight")
    expect(percent).to_have_value(str(dragged + 1))
    page.keyboard.press("Control+z")
    expect(percent).to_have_value(str(dragged))
    set_threshold(page, LAYER, 62.5)

    # The figures follow; the prediction says that it is one.
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    kept = page.locator("#k-sparsity").text_content()
    assert shown_percent(kept) > 10
    expect(page.locator("#k-pred-s")).to_contain_text("±")

    # State lives in the URL: a reload shows the same.
    page.wait_for_timeout(600)
    page.reload()
    expect(page.get_by_label(f"Sparsity of {LAYER} in percent")).to_have_value("62.5")
    assert page.locator("#k-sparsity").text_content() == kept

    # Measure, and compare the page with the network itself.
    page.locator("#measure").click()
    measured = page.locator("#k-meas-v")
    expect(measured).not_to_have_text("–", timeout=30_000)
    expect(page.locator("#k-meas-s")).to_contain_text("359")

    with page.expect_download() as got:
        page.locator("#download summary").click()
        page.locator("#download [data-format=safetensors]").click()
    checkpoint = tmp_path / got.value.suggested_filename
    got.value.save_as(checkpoint)
    assert checkpoint.suffix == ".safetensors"
    network = DigitsNet()
    state = load_file(checkpoint)
    network.load_state_dict(state, strict=True)
    accuracy = sample.correct(network, "tune") / len(sample.labels("tune"))
    assert shown_percent(measured.text_content()) == pytest.approx(accuracy * 100, abs=0.051)
    weights = [value for value in network.parameters() if value.dim() > 1]
    sparsity = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
    assert shown_percent(page.locator("#k-sparsity").text_content()) == pytest.approx(
        sparsity * 100, abs=0.051
    )
    assert int((state[LAYER] == 0).sum()) == round(0.625 * state[LAYER].numel())

    with page.expect_download() as got:
        page.locator("#download summary").click()
        page.locator("#download [data-format=recipe]").click()
    recipe = json.loads(Path(got.value.path()).read_text())
    assert recipe["sparsity"] == pytest.approx(sparsity)

    # An edit makes the measurement stale at once.
    set_threshold(page, FIRST, 97)
    expect(page.locator("#k-meas")).to_have_class(re.compile("stale"))

    # Retrain, and take the retrained network home.
    page.locator("#retrain").click()
    page.get_by_label("Epochs").fill("3")
    page.get_by_role("button", name="Start retraining").click()
    page.wait_for_url(re.compile(r"/experiments/\d+"), timeout=30_000)
    expect(page.locator("#status")).to_contain_text("done", timeout=120_000)
    expect(page.locator("#table")).to_contain_text("uniform", ignore_case=True)
    expect(page.locator("#chart .main-svg").first).to_be_visible()
    accessible(page)
    experiment = int(page.url.rsplit("/", 1)[1].split("?")[0])
    with server.client() as client:
        runs = client.call("GET", f"/api/experiments/{experiment}")["runs"]
    after = next(run for run in runs if run["name"] == "plan")["after"]
    expect(page.locator("#kpis")).to_contain_text(f"{after['accuracy'] * 100:.1f}")
    page.locator("#download summary").click()
    with page.expect_download() as got:
        page.locator("#download-list").get_by_text("safetensors").first.click()
    network = DigitsNet()
    network.load_state_dict(load_file(got.value.path()), strict=True)
    assert sample.correct(network, "test") == round(after["accuracy"] * after["samples"])

    # The other pages.
    for path in ("/", "/jobs", "/models/1", "/datasets/1"):
        page.goto(server.url + path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        page.wait_for_load_state("networkidle")
        accessible(page)


def test_a_file_that_runs_code_gets_a_sentence_on_its_page(
    page: Page, server: LiveServer, tmp_path: Path
) -> None:
    evil = tmp_path / "whole<b>module.pt2"
    torch.save(DigitsNet(), evil)
    page.goto(server.link)
    page.locator("input[data-picker=model]").set_input_files(evil)
    expect(page.locator("#slot-model")).to_contain_text("torch.export", timeout=30_000)
    page.goto(f"{server.url}/models/1")
    expect(page.locator("main")).to_contain_text("torch.export.save")
    expect(page.locator("body")).to_contain_text("whole<b>module")
    assert page.locator("main b", has_text="module").count() == 0


def test_files_can_be_dropped_anywhere_on_the_page(
    page: Page, server: LiveServer, sample: Sample
) -> None:
    page.goto(server.link)
    transfer = page.evaluate_handle(
        """([model, data]) => {
          const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes(model)], "dropped.pt2"));
          transfer.items.add(new File([bytes(data)], "dropped.npz"));
          return transfer;
        }""",
        [_base64(sample.model_path), _base64(sample.dataset_path)],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("body", event, {"dataTransfer": transfer})
    expect(page.get_by_role("button", name="Analyse", exact=True)).to_be_enabled(timeout=30_000)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_nothing_is_shown_without_signing_in(page: Page, server: LiveServer) -> None:
    page.goto(f"{server.url}/jobs")
    expect(page).to_have_url(re.compile(r"/sign-in\?next="))
    page.get_by_label("Token").fill(server.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{server.url}/jobs")


def test_no_page_scrolls_sideways(page: Page, server: LiveServer, sample: Sample) -> None:
    with server.client() as client:
        analysis = client.push_files(sample.model_path, sample.dataset_path, sparsities=[0.5, 0.9])
        analysis.wait(timeout_seconds=60)
    page.goto(server.link)
    pages = ("/", f"/analyses/{analysis.id}", "/jobs", "/models/1", "/datasets/1")
    for width, path in product((390, 1024), pages):
        page.set_viewport_size({"width": width, "height": 844})
        page.goto(server.url + path)
        page.wait_for_load_state("load")
        page.wait_for_timeout(300)
        overflow = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 0, f"{path} is {overflow} px too wide at {width} px"
