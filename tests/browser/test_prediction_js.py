"""The page predicts exactly what the server predicts.

`static/js/explore/prediction.js` is run in a real Chromium on random curves, plans and tensors
and compared with `app.domain` number by number.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from app.domain.levels import removed_count
from app.domain.metrics import ACCURACY, METRICS, Metric
from app.domain.prediction import (
    CurvePoint,
    UnitFacts,
    curve_point,
    interpolate,
    plan_costs,
    predict_accuracy,
    predict_metric,
    unpaired_point,
)
from app.domain.sizes import packed_bytes
from app.paths import static_dir

pytestmark = pytest.mark.browser

TOLERANCE = 1e-12

CALL = """async ({name, cases}) => {
  const module = await import('/js/explore/prediction.js');
  const revive = (value) => (Array.isArray(value?.pairs) ? new Map(value.pairs) : value);
  return cases.map((args) => module[name](...args.map(revive)));
}"""


class _Quiet(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".js": "text/javascript"}  # noqa: RUF012

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(static_dir())))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        tab = browser.new_page()
        tab.goto(f"http://127.0.0.1:{server.server_address[1]}/js/explore/")
        yield tab
        tab.close()
    finally:
        server.shutdown()
        server.server_close()


def call(page: Page, name: str, cases: list[list[Any]]) -> list[Any]:
    return page.evaluate(CALL, {"name": name, "cases": cases})


def as_map(mapping: dict[str, Any]) -> dict[str, Any]:
    return {"pairs": [[key, value] for key, value in mapping.items()]}


def random_curve(rng: random.Random, samples: int, baseline_correct: int) -> list[CurvePoint]:
    levels = sorted(rng.sample(range(1, 1_000_001), rng.randint(1, 19)))
    points = []
    for level in levels:
        lost = rng.randint(0, baseline_correct)
        gained = rng.randint(0, samples - baseline_correct)
        accuracy = (baseline_correct - lost + gained) / samples
        points.append(curve_point(level / 1_000_000, accuracy, lost, gained, samples))
    return points


def as_points(points: list[CurvePoint]) -> list[dict[str, float]]:
    return [{"sparsity": p.sparsity, "value": p.value, "deviation": p.deviation} for p in points]


def test_counts_round_as_python_does(page: Page) -> None:
    rng = random.Random(1)
    cases: list[list[Any]] = [[0.5, 1], [0.5, 3], [0.5, 5], [0.25, 2], [0.25, 6], [0.0, 9], [1, 9]]
    cases += [[rng.randint(0, 1_000_000) / 1_000_000, rng.randint(0, 5000)] for _ in range(500)]
    cases += [[rng.choice([0.125, 0.25, 0.5, 0.75]), rng.randint(0, 400)] for _ in range(200)]
    assert call(page, "removedCount", cases) == [removed_count(s, n) for s, n in cases]


def test_packed_bytes(page: Page) -> None:
    rng = random.Random(2)
    cases = []
    for _ in range(400):
        rows = rng.choice([1, 2, 10, 64, 512])
        size = rows * rng.choice([1, 9, 27, 576, 65_536, 65_537])
        cases.append([size, rng.randint(0, size), rows, rng.choice([1, 2, 4, 8])])
    cases.append([0, 0, 0, 4])
    assert call(page, "packedBytes", cases) == [packed_bytes(*case) for case in cases]


def test_deviation_of_a_paired_difference(page: Page) -> None:
    rng = random.Random(3)
    cases = [[0, 0, 0], [0, 0, 50]]
    for _ in range(300):
        samples = rng.randint(1, 10_000)
        lost = rng.randint(0, samples)
        cases.append([lost, rng.randint(0, samples - lost), samples])
    expected = [curve_point(0.5, 0.5, *case).deviation for case in cases]
    assert call(page, "pairedDeviation", cases) == pytest.approx(expected, abs=TOLERANCE)


def test_deviation_behind_an_interval_of_any_confidence(page: Page) -> None:
    cases = [[0.1, 0.3, c] for c in (0.6, 0.8, 0.9, 0.95, 0.99, 0.999, 0.99999)]
    expected = [unpaired_point(0.5, 0.2, *case).deviation for case in cases]
    assert call(page, "intervalDeviation", cases) == pytest.approx(expected, rel=1e-9)


def test_interpolation(page: Page) -> None:
    rng = random.Random(4)
    cases = []
    for _ in range(100):
        points = random_curve(rng, 500, 450)
        at = [0.0, 1.0, points[0].sparsity, points[-1].sparsity, points[0].sparsity / 2]
        at += [rng.random() for _ in range(5)]
        cases += [(points, 0.9, sparsity) for sparsity in at]
    got = call(page, "interpolate", [[as_points(p), b, s] for p, b, s in cases])
    for pair, case in zip(got, cases, strict=True):
        assert pair == pytest.approx(list(interpolate(*case)), abs=TOLERANCE)


@pytest.mark.parametrize("units", [1, 4, 22, 500])
def test_accuracy_of_random_plans(page: Page, units: int) -> None:
    rng = random.Random(units)
    cases, expected = [], []
    for _ in range(25 if units < 100 else 3):
        samples = rng.randint(20, 2000)
        correct = rng.randint(samples // 2, samples)
        names = [f"unit.{i}" for i in range(units)]
        curves = {n: random_curve(rng, samples, correct) for n in names if rng.random() > 0.1}
        if rng.random() < 0.2:
            curves[names[0]] = []
        plan = {
            n: rng.choice([0.0, rng.randint(0, 1_000_000) / 1_000_000])
            for n in names
            if rng.random() > 0.1
        }
        baseline = rng.choice([correct / samples, correct / samples, 0.0])
        given = as_map({n: as_points(p) for n, p in curves.items()})
        cases.append([given, baseline, as_map(plan), asdict(ACCURACY)])
        expected.append(predict_accuracy(curves, baseline, plan))
    for got, want in zip(call(page, "predictMetric", cases), expected, strict=True):
        assert got == pytest.approx(list(want), abs=TOLERANCE)
    assert any(0 < want[0] < 1 and want[1] < want[0] < want[2] for want in expected)


ALL = {metric.name: metric for known in METRICS.values() for metric in known}


@pytest.mark.parametrize("metric", ALL.values(), ids=ALL)
def test_every_metric_of_random_plans(page: Page, metric: Metric) -> None:
    rng = random.Random(metric.name)
    span = 1.0 if metric.fraction else rng.choice([0.01, 1.0, 300.0])
    cases, expected = [], []
    for _ in range(40):
        baseline = rng.choice([rng.random() * span, rng.random() * span, 0.0])
        curves = {}
        for name in ("a", "b", "c", "d"):
            points = []
            for level in sorted(rng.sample(range(1, 1000), rng.randint(0, 9))):
                value = rng.random() if metric.fraction else baseline + rng.uniform(-0.3, 3) * span
                half = rng.choice([None, rng.random() * span / 9])
                bounds = (None, None) if half is None else (value - half, value + half)
                points.append(unpaired_point(level / 1000, value, *bounds))
            curves[name] = points
        plan = {name: rng.choice([0.0, rng.random()]) for name in ("a", "b", "c", "d", "other")}
        given = as_map({n: as_points(p) for n, p in curves.items()})
        cases.append([given, baseline, as_map(plan), asdict(metric)])
        expected.append(predict_metric(curves, baseline, plan, metric))
    for got, want in zip(call(page, "predictMetric", cases), expected, strict=True):
        assert got == pytest.approx(list(want), abs=TOLERANCE, rel=TOLERANCE)


def test_deviation_of_an_interval(page: Page) -> None:
    cases = [[0.2, 0.4], [None, None], [3, 2], [0.25, None], [-2.5, 7]]
    expected = [unpaired_point(0.5, 0.3, *case).deviation for case in cases]
    assert call(page, "intervalDeviation", cases) == pytest.approx(expected, abs=TOLERANCE)


def test_costs_of_random_plans(page: Page) -> None:
    rng = random.Random(5)
    cases, expected = [], []
    for _ in range(60):
        units = []
        for i in range(rng.randint(0, 40)):
            rows = rng.choice([1, 8, 16, 64])
            size = rows * rng.choice([0, 1, 9, 144, 576])
            units.append(UnitFacts(f"u{i}", size, rows, rng.choice([2, 4, 8]), size * 49))
        plan = {u.id: rng.randint(0, 1_000_000) / 1_000_000 for u in units if rng.random() > 0.2}
        totals = {
            "parameters": sum(u.size for u in units) + rng.randint(0, 999),
            "macs": sum(u.macs for u in units) + rng.randint(0, 9999),
            "bytes": sum(u.size * u.itemsize for u in units) + rng.randint(0, 9999),
        }
        cases.append([[u.__dict__ for u in units], as_map(plan), totals])
        expected.append(
            plan_costs(
                units,
                plan,
                total_parameters=totals["parameters"],
                total_macs=totals["macs"],
                total_bytes=totals["bytes"],
            )
        )
    for got, want in zip(call(page, "planCosts", cases), expected, strict=True):
        sparsity, parameters, macs, size = want
        assert got["sparsity"] == pytest.approx(sparsity, abs=TOLERANCE)
        assert (got["parameters"], got["macs"], got["bytes"]) == (parameters, macs, size)


def test_the_band_is_ninety_five_percent(page: Page) -> None:
    """One unit with a known deviation: the half width is 1.96 of it, not of something else."""
    samples, lost = 1000, 40
    point = curve_point(0.5, 0.9 - lost / samples, lost, 0, samples)
    got = call(
        page,
        "predictMetric",
        [[as_map({"u": as_points([point])}), 0.9, as_map({"u": 0.5}), asdict(ACCURACY)]],
    )
    deviation = math.sqrt((lost / samples - (lost / samples) ** 2) / samples)
    assert (got[0][2] - got[0][1]) / 2 == pytest.approx(1.959964 * deviation, rel=1e-6)
