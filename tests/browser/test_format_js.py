"""Numbers, names and small curves as the pages show them, run in a real Chromium.

`static/js/format.js` is compared with values worked out by hand or by Python's own formatting,
`static/js/sparkline.js` with the formula computed here.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from app.paths import static_dir

pytestmark = pytest.mark.browser

SPACE, MINUS = "\u202f", "\u2212"

CALL = """async ({file, name, cases}) => {
  const module = await import(`/js/${file}`);
  return cases.map((args) => module[name](...args));
}"""


class _Quiet(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".js": "text/javascript"}  # noqa: RUF012

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(static_dir())))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    context = browser.new_context(timezone_id="Europe/Berlin")
    try:
        tab = context.new_page()
        tab.goto(f"http://127.0.0.1:{server.server_address[1]}/js/")
        yield tab
    finally:
        context.close()
        server.shutdown()
        server.server_close()


def call(page: Page, name: str, *cases: list[Any], file: str = "format.js") -> list[Any]:
    return page.evaluate(CALL, {"file": file, "name": name, "cases": list(cases)})


def one(page: Page, name: str, *args: Any, file: str = "format.js") -> Any:
    return call(page, name, list(args), file=file)[0]


@pytest.mark.parametrize(
    ("name", "args", "shown"),
    [
        ("percent", [0.714], f"71.4{SPACE}%"),
        ("percent", [1, 0], f"100{SPACE}%"),
        ("percent", [None], "–"),
        ("percentValue", [0.00049], "0.0"),
        ("pp", [-0.011], f"{MINUS}1.1{SPACE}pp"),
        ("pp", [0.025], f"+2.5{SPACE}pp"),
        ("pp", [-0.0001], f"0.0{SPACE}pp"),
        ("pp", [0.0001], f"0.0{SPACE}pp"),
        ("number", [270896], "270,896"),
        ("number", [-1234.5, 1], f"{MINUS}1,234.5"),
        ("interval", [0.906, 0.9213], "[90.6, 92.1]"),
        ("interval", [None, 0.5], ""),
        ("count", [270896], f"271{SPACE}k"),
        ("count", [2_240_123], f"2.24{SPACE}M"),
        ("count", [25_612], f"25.6{SPACE}k"),
        ("count", [999_700], f"1.00{SPACE}M"),
        ("count", [640], "640"),
        ("bytes", [1_083_584], f"1.08{SPACE}MB"),
        ("bytes", [2_000_000_000], f"2{SPACE}GB"),
        ("bytes", [999], f"999{SPACE}B"),
        ("loss", [0.063201], "0.0632"),
        ("loss", [2.3026], "2.30"),
        ("loss", [0.00001234], f"1.2e{MINUS}5"),
        ("rate", [0.01], "0.01"),
        ("rate", [0.00001], f"1e{MINUS}5"),
        ("rate", [0], "0"),
        ("duration", [11.4], f"11{SPACE}s"),
        ("duration", [125], f"2{SPACE}min"),
        ("duration", [4800], f"80{SPACE}min"),
        ("duration", [6000], f"1{SPACE}h 40{SPACE}min"),
        ("plural", [1, "layer"], "1 layer"),
        ("plural", [1200, "layer"], "1,200 layers"),
        ("clock", ["2026-11-21T13:02:31Z"], "14:02"),
        ("clock", ["nonsense"], ""),
    ],
)
def test_figures_are_written_as_the_house_writes_them(
    page: Page, name: str, args: list[Any], shown: str
) -> None:
    assert one(page, name, *args) == shown


def test_numbers_agree_with_python_over_many_magnitudes(page: Page) -> None:
    chance = random.Random(7)
    values = [chance.uniform(-1, 1) * 10 ** chance.randint(0, 12) for _ in range(300)]
    expected = [
        f"{value:,.1f}".replace("-", MINUS).replace(f"{MINUS}0.0", "0.0") for value in values
    ]
    assert call(page, "number", *[[value, 1] for value in values]) == expected


def test_scaled_counts_never_show_a_thousand(page: Page) -> None:
    chance = random.Random(11)
    values = [round(10 ** chance.uniform(0, 13)) for _ in range(300)] + [999, 1000, 999_999]
    factors = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    for value, parts in zip(values, call(page, "countParts", *[[v] for v in values]), strict=True):
        shown = float(parts["value"].replace(",", ""))
        assert shown < 1000, (value, parts)
        assert shown * factors[parts["unit"]] == pytest.approx(value, rel=0.006)


@pytest.mark.parametrize(
    ("then", "shown"),
    [
        ("2026-11-21T11:59:30Z", "now"),
        ("2026-11-21T11:55:00Z", f"5{SPACE}min ago"),
        ("2026-11-21T08:30:00Z", "09:30"),
        ("2026-11-20T22:59:00Z", "yesterday"),
        ("2026-11-20T23:01:00Z", "00:01"),  # after midnight in Berlin
        ("2026-11-16T11:00:00Z", "Mon"),
        ("2026-02-03T11:00:00Z", "3 Feb"),
        ("2025-02-03T11:00:00Z", "3 Feb 2025"),
        ("", ""),
    ],
)
def test_instants_are_told_from_now(page: Page, then: str, shown: str) -> None:
    now = page.evaluate("Date.parse('2026-11-21T12:00:00Z')")
    assert one(page, "ago", then, now) == shown


def test_names_can_hold_no_markup_for_plotly(page: Page) -> None:
    name = "<a href='javascript:alert(1)'>&lt;b</a>"
    safe = one(page, "plotlyText", name)
    assert not set("<>") & set(safe)
    decoded = page.evaluate(
        "(t) => new DOMParser().parseFromString(t, 'text/html').body.textContent", safe
    )
    assert decoded == name


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("layer1.0.conv1", ["layer1.0.", "conv1"]),
        ("layer3.0.downsample.0", ["layer3.0.", "downsample.0"]),
        ("fc", ["", "fc"]),
        ("0", ["", "0"]),
    ],
)
def test_paths_are_cut_before_the_part_that_tells_them_apart(
    page: Page, path: str, parts: list[str]
) -> None:
    assert one(page, "splitPath", path) == parts


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("", None),
        ("10, 20 30%", [0.1, 0.2, 0.3]),
        ("90;12.5, 90", [0.125, 0.9]),
    ],
)
def test_levels_are_read_in_any_usual_notation(
    page: Page, text: str, levels: list[float] | None
) -> None:
    assert one(page, "parseLevels", text, file="upload.js") == levels


@pytest.mark.parametrize("text", ["ten", "0", "101", "-5"])
def test_wrong_levels_are_named(page: Page, text: str) -> None:
    message = page.evaluate(
        """async (text) => {
          const { parseLevels } = await import('/js/upload.js');
          try { parseLevels(text); return null; } catch (error) { return error.message; }
        }""",
        text,
    )
    assert message
    assert text in message


@pytest.mark.parametrize(
    ("name", "kind"),
    [("net.PT2", "model"), ("whole.pth", "model"), ("d.npz", "dataset"), ("notes.txt", None)],
)
def test_dropped_files_are_sorted_by_their_ending(page: Page, name: str, kind: str | None) -> None:
    assert one(page, "kindOf", name, file="upload.js") == kind


def stretched(accuracy: float, baseline: float) -> float:
    top, bottom = math.asinh(-0.009 / 0.006), math.asinh(max(baseline * 0.72, 0.05) / 0.006)
    at = (math.asinh((baseline - accuracy) / 0.006) - top) / (bottom - top)
    return min(1.0, max(0.0, at))


def test_the_scale_gives_the_first_point_lost_a_fifth_of_the_height(page: Page) -> None:
    cases = [[accuracy / 50, 0.917] for accuracy in range(51)]
    heights = call(page, "stretched", *cases, file="sparkline.js")
    assert heights == pytest.approx([stretched(*case) for case in cases])
    first = stretched(0.907, 0.917) - stretched(0.917, 0.917)
    assert 0.15 < first < 0.25


def test_a_curve_starts_at_the_dense_network_and_runs_by_rising_sparsity(page: Page) -> None:
    points = [[0.9, 0.5], [0.1, 0.97], [0.5, 0.9]]
    path = one(page, "curvePath", points, {"baseline": 0.97}, file="sparkline.js")
    pairs = [
        tuple(float(number) for number in step.split()) for step in path.lstrip("M").split("L")
    ]
    expected = [(0.0, 0.97), (0.1, 0.97), (0.5, 0.9), (0.9, 0.5)]
    for (x, y), (sparsity, accuracy) in zip(pairs, expected, strict=True):
        assert x == pytest.approx(sparsity * 100, abs=0.051)
        assert y == pytest.approx(stretched(accuracy, 0.97) * 20, abs=0.051)


def test_the_median_leaves_out_what_few_units_have(page: Page) -> None:
    lines = [
        [[0.1, 0.9], [0.5, 0.8]],
        [[0.1, 0.7], [0.5, 0.6]],
        [[0.1, 0.8]],
        [[0.1, 0.6], [0.9, 0.1]],
        [[0.1, 0.5]],
    ]
    assert one(page, "medianCurve", lines, file="sparkline.js") == [[0.1, 0.7]]


def test_small_pictures_are_svg_with_one_line_a_unit(page: Page) -> None:
    found = page.evaluate(
        """async () => {
          const { miniCurves, sparkline } = await import('/js/sparkline.js');
          const curves = Object.fromEntries(['a', 'b', 'c', 'd'].map((name, i) =>
            [name, [[0.5, 0.9 - i / 10], [0.9, 0.5 - i / 10]]]));
          const mini = miniCurves({ ...curves, empty: [] }, 0.95, '<4 layers>');
          const row = sparkline(curves.a, { baseline: 0.95, tolerated: 0.94 });
          return {
            thin: mini.querySelectorAll('path:not([class])').length,
            worstIsLast: mini.querySelector('.worst').getAttribute('d')
              === mini.querySelectorAll('path:not([class])')[3].getAttribute('d'),
            label: mini.getAttribute('aria-label'), role: mini.getAttribute('role'),
            classes: [...row.querySelectorAll('path')].map((path) => path.getAttribute('class')),
            tol: row.querySelector('.tol').getAttribute('d'),
          };
        }"""
    )
    assert found == {
        "thin": 4,
        "worstIsLast": True,
        "label": "<4 layers>",
        "role": "img",
        "classes": ["tol", "past", "kept"],
        "tol": f"M0 {stretched(0.94, 0.95) * 20:.1f}H100",
    }
