"""Forms for what a file does not say, and the look at weights without a network."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from app.store import queue, workers
from app.store.tables import Dataset
from tests.browser.looking import accessible
from tests.contract.kinds import NASTY, weights_model
from tests.contract.site import Site, ready_dataset, take_job

pytestmark = pytest.mark.browser


def choose(page: Page, kind: str, name: str, content: bytes = b"some bytes") -> None:
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    page.locator(f"input[data-picker={kind}]").set_input_files(file)  # type: ignore[arg-type]


def only(site: Site, noun: str) -> dict[str, Any]:
    (item,) = site.http.get(f"/api/{noun}").json()["items"]
    return site.http.get(f"/api/{noun}/{item['id']}").json()


def test_weights_are_asked_for_their_architecture(page: Page, site: Site) -> None:
    page.goto(site.url)
    slot = page.locator("#slot-model")
    choose(page, "model", "resnet.safetensors")
    name = slot.get_by_label("Name")
    expect(name).to_be_focused()
    accessible(page)
    upload = slot.get_by_role("button", name="Upload")
    for text, words in (("resnet18", "a colon"), ("timm:", "a colon")):
        name.fill(text)
        upload.click()
        expect(slot.get_by_role("alert")).to_contain_text(words)
        expect(name).to_have_attribute("aria-invalid", "true")
    name.fill("timm:resnet18")
    slot.get_by_label("Arguments").fill("num_classes=10")
    upload.click()
    expect(slot.get_by_role("alert")).to_contain_text("not JSON")
    assert site.http.get("/api/models").json()["items"] == []
    slot.get_by_label("Arguments").fill('{"num_classes": 10}')
    upload.click()
    expect(slot).to_have_attribute("data-state", "importing")
    made = only(site, "models")
    assert made["architecture"] == "timm:resnet18"
    assert made["architecture_args"] == {"num_classes": 10}

    # What the import did not like can be corrected: the file and the answers are still there.
    lease = take_job(site, "import-model")
    with queue.fenced(site.store, lease) as session:
        queue.fail(session, lease, {
            "code": "invalid-input", "message": "timm:resnet18 has no tensor <b>odd</b>.",
            "hint": "Name another architecture.",
        })  # fmt: skip
    expect(slot.get_by_role("alert")).to_have_text("timm:resnet18 has no tensor <b>odd</b>.")
    expect(slot).to_contain_text("Name another architecture.")
    slot.get_by_role("button", name="Correct and upload again").click()
    expect(name).to_have_value("timm:resnet18")
    expect(slot.get_by_label("Arguments")).to_have_value('{"num_classes": 10}')
    name.fill("timm:resnet34")
    upload.click()
    expect(slot).to_have_attribute("data-state", "importing")
    latest = site.http.get("/api/models").json()["items"][0]
    assert latest["architecture"] == "timm:resnet34"


def test_a_network_of_its_own_is_not_asked_about(page: Page, site: Site) -> None:
    page.goto(site.url)
    choose(page, "model", "net.pt2")
    expect(page.locator("#slot-model")).to_have_attribute("data-state", "importing")
    assert only(site, "models")["architecture"] is None
    choose(page, "dataset", "digits.npz")
    expect(page.locator("#slot-dataset")).to_have_attribute("data-state", "importing")
    assert (only(site, "datasets")["task"], only(site, "datasets")["options"]) == (
        "classification", {},
    )  # fmt: skip


def test_a_table_is_asked_for_its_column(page: Page, site: Site) -> None:
    page.goto(site.url)
    slot = page.locator("#slot-dataset")
    table = f'\ufeffid,area,"price, eur","{NASTY.replace(chr(34), chr(34) * 2)}"\r\n1,2,3,4\r\n'
    choose(page, "dataset", "houses.csv", table.encode())
    column = slot.get_by_label("Predicted column")
    expect(column).to_have_value(NASTY)
    expect(slot).to_contain_text(f"In the file: id, area, price, eur, {NASTY}")
    assert page.locator("#slot-dataset img").count() == 0
    accessible(page)
    upload = slot.get_by_role("button", name="Upload")
    column.fill("prise")
    upload.click()
    expect(slot.get_by_role("alert")).to_contain_text("There is no column “prise”")
    column.fill("price, eur")
    slot.get_by_label("Task").select_option("regression")
    slot.get_by_text("Other columns").click()
    slot.get_by_label("Leave out").fill("id, nothing")
    upload.click()
    expect(slot.get_by_role("alert")).to_contain_text("“nothing”")
    slot.get_by_label("Leave out").fill(" id ")
    upload.click()
    expect(slot).to_have_attribute("data-state", "importing")
    made = only(site, "datasets")
    assert made["task"] == "regression"
    assert made["options"] == {"target": "price, eur", "ignore": ["id"]}


def test_images_are_asked_for_size_and_scale(page: Page, site: Site) -> None:
    page.goto(site.url)
    slot = page.locator("#slot-dataset")
    choose(page, "dataset", "birds.zip")
    slot.get_by_label("Size").fill("0")
    slot.get_by_role("button", name="Upload").click()
    expect(slot.get_by_role("alert")).to_contain_text("whole number of pixels")
    slot.get_by_label("Size").fill("32")
    slot.get_by_label("Scale").select_option("cifar10")
    slot.get_by_role("button", name="Upload").click()
    expect(slot).to_have_attribute("data-state", "importing")
    assert only(site, "datasets")["options"] == {"preset": "cifar10", "size": 32}


def test_arrays_go_with_the_task_that_was_chosen_before(page: Page, site: Site) -> None:
    page.goto(site.url)
    slot = page.locator("#slot-dataset")
    slot.get_by_text("Task: classification, or another").click()
    expect(slot.get_by_label("Rows of 0 and 1")).to_be_visible()
    slot.get_by_label("Task").select_option("language-modelling")
    expect(slot.get_by_label("Rows of 0 and 1")).to_be_hidden()
    choose(page, "dataset", "tokens.safetensors")
    expect(slot).to_have_attribute("data-state", "importing")
    made = only(site, "datasets")
    assert (made["task"], made["options"]) == ("language-modelling", {})


def test_weights_alone_are_looked_at(page: Page, site: Site) -> None:
    model_id = weights_model(site)
    page.goto(f"{site.url}/models/{model_id}")
    expect(page.locator("#bare")).to_contain_text("Weights only: no network, so no analysis")
    expect(page.locator("#new")).to_be_hidden()
    expect(page.locator("#facts")).to_contain_text("module.")
    expect(page.locator("#facts")).to_contain_text("state_dict")
    rows = page.locator("#weights tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("16 × 3 × 3 × 3")
    expect(rows.first).to_contain_text("2.8\u202f%")
    expect(rows.first.locator("td.cut")).to_have_text(["0.07000", "0.1300", "0.1700", "0.2000"])
    expect(rows.first.locator("svg.spark path")).to_have_count(1)
    expect(rows.first).to_have_attribute("aria-current", "true")
    expect(page.locator("#weights-chart svg")).to_have_attribute(
        "aria-label", re.compile("90 percent are below 0.1700")
    )
    rows.last.get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(rows.last).to_have_attribute("aria-current", "true")
    expect(page.locator("#weights-chart figcaption")).to_have_text(NASTY)
    assert page.locator("main img").count() == 0
    accessible(page)
    # Nor can an analysis be started with them on the first page.
    dataset_id = ready_dataset(site)
    page.goto(f"{site.url}/?model={model_id}&dataset={dataset_id}")
    expect(page.locator("#why")).to_contain_text("name its architecture")
    expect(page.locator("#analyse")).to_be_disabled()


def test_a_data_set_says_how_it_was_read(page: Page, site: Site) -> None:
    dataset_id = ready_dataset(site)
    with site.store.write() as session:
        row = session.get_one(Dataset, dataset_id)
        row.options = {"target": "price"}
        row.details = {
            "notes": ["The column “id” was left out."], "counts": {"tune": [3, 5]},
            "class_names": [NASTY, "dog"], "feature_names": ["area", NASTY], "label_shape": [],
            "label_dtype": "int64", "options": {"target": "price", "as": "one-hot"},
        }  # fmt: skip
    page.goto(f"{site.url}/datasets/{dataset_id}")
    facts = page.locator("#facts")
    for words in ("one class a sample", f"area, {NASTY}", "target price", "as one-hot", "“id”"):
        expect(facts).to_contain_text(words)
    expect(page.locator("#classes tbody th")).to_have_text([NASTY, "dog"])
    assert page.locator("main img").count() == 0
    accessible(page)


def test_workers_with_weak_walls_are_named(page: Page, site: Site) -> None:
    with site.store.write() as session:
        workers.register(session, pid=1, host="a", isolation="bubblewrap")
        workers.register(session, pid=2, host="b", isolation="rlimits")
    page.goto(f"{site.url}/jobs")
    rows = page.locator("#workers tbody tr")
    expect(rows.filter(has_text="rlimits").locator(".chip.warn")).to_have_text("rlimits")
    expect(rows.filter(has_text="rlimits")).to_contain_text("Install bubblewrap")
    expect(rows.filter(has_text="file system, processes and network")).to_have_count(1)
    accessible(page)
