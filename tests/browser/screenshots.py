"""`make screenshots`: every page, light and dark, wide and 390 px, of a real installation."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import BrowserContext, sync_playwright

from tests.browser.conftest import CHROMIUM_FLAGS
from tests.browser.many_digits import write_many
from tests.support.live import finished, live_server
from tests.support.sample import make_sample

SIZES = {"wide": (1440, 900), "narrow": (390, 844)}
PLAN = {
    "stem.conv.weight": 0.15,
    "block1.first.conv.weight": 0.5,
    "block1.second.conv.weight": 0.45,
    "down.conv.weight": 0.4,
    "block2.first.conv.weight": 0.7,
    "block2.second.conv.weight": 0.7,
    "head.weight": 0.35,
}


def shoot(context: BrowserContext, link: str, url: str, pages: dict[str, str], out: Path) -> None:
    page = context.new_page()
    page.goto(link)
    for name, path in pages.items():
        page.goto(url + path)
        page.wait_for_load_state("load")
        page.wait_for_timeout(1200)
        page.screenshot(
            path=out / f"{name}.png", full_page=(page.viewport_size or {})["width"] < 800
        )
    page.close()


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = os.environ.get("PRUNESCOPE_CHROMIUM") or shutil.which("chromium")
    with (
        tempfile.TemporaryDirectory() as folder,
        live_server(Path(folder) / "data") as server,
        server.client() as client,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        shoot(context, server.link, server.url, {"home-empty": "/"}, out)
        context.close()
        sample = make_sample(Path(folder))
        analysis = client.push_files(sample.model_path, sample.dataset_path, name="digits-cnn")
        analysis.wait()
        body = {"analysis_id": analysis.id, "sparsities": PLAN}
        plan = client.call("POST", "/api/plans", json=body)["id"]
        job = client.call("POST", f"/api/plans/{plan}/measure", json={"split": "tune"})["id"]
        finished(client, f"/api/jobs/{job}")
        steep = dict.fromkeys(PLAN, 0.93)
        body = {"analysis_id": analysis.id, "sparsities": steep}
        second = client.call("POST", "/api/plans", json=body)["id"]
        body = {"plan_id": second, "epochs": 12}
        experiment = client.call("POST", "/api/experiments", json=body)["id"]
        finished(client, f"/api/experiments/{experiment}", seconds=300)
        _, data = write_many(sample, Path(folder))
        ids = {"model_id": 1, "dataset_id": client.upload("datasets", data, name="many digits")}
        client.wait_ready("datasets", ids["dataset_id"])
        asked = {
            "adaptive": {"criteria": ["magnitude", "fisher", "random"]},
            "knee": {"evaluation": {"mode": "knee"}},
        }
        made = {
            name: client.call("POST", "/api/analyses", json=ids | body)["id"]
            for name, body in asked.items()
        }
        for number in made.values():
            finished(client, f"/api/analyses/{number}", seconds=300)
        broken = Path(folder) / "broken.pt2"
        broken.write_bytes(b"PK\x05\x06 not an archive")
        finished(client, f"/api/models/{client.upload('models', broken)}")
        pages = {
            "explore": f"/analyses/{analysis.id}?plan={plan}&unit=block2.first.conv.weight",
            "adaptive": f"/analyses/{made['adaptive']}?unit=block2.first.conv.weight"
            "&compare=fisher&fit=1&t=20,60,50,40,75,75,40",
            "knee": f"/analyses/{made['knee']}?unit=block2.first.conv.weight",
            "experiment": f"/experiments/{experiment}",
            "home": "/",
            "model": "/models/1",
            "model-failed": "/models/2",
            "dataset": "/datasets/1",
            "jobs": "/jobs",
            "missing": "/models/99",
        }
        for theme in ("light", "dark"):
            for size, (width, height) in SIZES.items():
                context = browser.new_context(
                    viewport={"width": width, "height": height}, color_scheme=theme
                )
                named = {f"{name}-{size}-{theme}": path for name, path in pages.items()}
                shoot(context, server.link, server.url, named, out)
                context.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots"))
