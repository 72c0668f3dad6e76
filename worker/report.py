"""A page that stands alone: the curves of one analysis, and the table of the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, select_autoescape

from app.domain.metrics import METRICS, Kind, Metric, primary
from app.paths import templates_dir

# Okabe and Ito (2008), told apart by colour-blind people too, without yellow; then as Tableau's.
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6b4c9a", "#7f6a55",
    "#4c5b5c", "#b23a48",
)  # fmt: skip
# One look for each criterion, so that a unit keeps its colour.
LOOKS = (
    ("solid", "circle"), ("dash", "square"), ("dot", "diamond"), ("dashdot", "triangle-up"),
    ("longdash", "cross"), ("longdashdot", "x"),
)  # fmt: skip


def write_report(document: dict[str, Any], path: Path) -> None:
    """Write `report.html` for the document of `prunescope analyse`; it loads nothing."""
    environment = Environment(
        loader=FileSystemLoader(templates_dir()), autoescape=select_autoescape()
    )
    environment.filters["figure"] = in_words
    environment.filters["percent"] = percent
    kind = Kind(document["task"])
    html = environment.get_template("report.html").render(
        document=document,
        primary=primary(kind),
        metrics=METRICS[kind],
        criteria=list(dict.fromkeys(curve["criterion"] for curve in document["curves"])),
        knees=knees(document),
        share=drop_is_share(kind),
        chart=curves_figure(document).to_html(
            full_html=False, include_plotlyjs=True, config={"displaylogo": False}
        ),
    )
    path.write_text(html)


def in_words(value: float | None, metric: Metric) -> str:
    """A figure as people read it: shares in percent, everything else in four digits."""
    if value is None:
        return "–"
    return f"{value * 100:.2f}" if metric.fraction else f"{value:.4g}"


def percent(value: float | None, digits: int = 2, share: bool = True) -> str:
    """A drop or a sparsity; where it is no `share` (nats, parts of a variance), in four digits."""
    if value is None:
        return "–"
    return f"{value * 100:.{digits}f}" if share else f"{value:.4g}"


def drop_is_share(kind: Kind) -> bool:
    """Whether a drop is one of the accuracy."""
    return kind not in (Kind.REGRESSION, Kind.LANGUAGE_MODELLING)


def knees(document: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """Each unit with the knee of each criterion, in the order in which criteria first come."""
    found: dict[str, dict[str, Any]] = {}
    for curve in document["curves"]:
        found.setdefault(curve["unit"], {})[curve["criterion"]] = curve["knee"]
    criteria = list(dict.fromkeys(curve["criterion"] for curve in document["curves"]))
    return [(unit, [by.get(name) for name in criteria]) for unit, by in found.items()]


def curves_figure(document: dict[str, Any]) -> go.Figure:
    """The primary metric over sparsity in percent: points with intervals, fits as lines.

    A unit has one colour, a criterion one dash; filled points are of the whole split. Names are
    escaped for Plotly's markup.
    """
    kind = Kind(document["task"])
    metric = primary(kind)
    scale, unit = (100.0, " %") if metric.fraction else (1.0, "")
    dense = document["baseline"]["metrics"][metric.name]
    figure = go.Figure()
    units = list(dict.fromkeys(curve["unit"] for curve in document["curves"]))
    criteria = list(dict.fromkeys(curve["criterion"] for curve in document["curves"]))
    for curve in document["curves"]:
        if not curve["points"]:
            continue
        colour = COLOURS[units.index(curve["unit"]) % len(COLOURS)]
        dash, symbol = LOOKS[criteria.index(curve["criterion"]) % len(LOOKS)]
        name = curve["unit"] if len(criteria) == 1 else f"{curve['unit']} ({curve['criterion']})"
        shared = {"name": escape(name, quote=False), "legendgroup": escape(name, quote=False)}
        figure.add_scatter(
            **_line(curve, dense["value"], metric, scale, drop_is_share(kind)),
            mode="lines",
            line={"color": colour, "dash": dash, "width": 1.5},
            hoverinfo="skip",
            showlegend=False,
            **shared,
        )
        figure.add_scatter(
            **_points(curve["points"], metric, scale),
            mode="markers",
            marker={
                "color": colour,
                "size": 7,
                "symbol": [
                    symbol if point["whole"] else f"{symbol}-open" for point in curve["points"]
                ],
            },
            hovertemplate=f"%{{fullData.name}}<br>%{{x:.1f}} % removed: %{{y:.4g}}{unit}"
            " %{customdata}<extra></extra>",
            **shared,
        )
    if dense["value"] is not None:
        text = f"dense {in_words(dense['value'], metric)}{unit}"
        figure.add_hline(y=dense["value"] * scale, line_dash="dash", annotation_text=text)
    figure.update_layout(
        template="plotly_white",
        height=640,
        xaxis={"title": "weights removed from this one layer, %", "range": [0, 101]},
        yaxis={"title": metric.label + ("," + unit if unit else "")},
        margin={"t": 30},
    )
    return figure


def _points(points: Sequence[Mapping[str, Any]], metric: Metric, scale: float) -> dict[str, Any]:
    """Where points are, with their intervals, and what is said of each."""
    found = [point["metrics"].get(metric.name, {}) for point in points]
    values = [_scaled(each.get("value"), scale) for each in found]
    above, below = [], []
    for each, value in zip(found, values, strict=True):
        low, high = _scaled(each.get("low"), scale), _scaled(each.get("high"), scale)
        known = value is not None and low is not None and high is not None
        above.append(max(0.0, high - value) if known else 0.0)  # type: ignore[operator]
        below.append(max(0.0, value - low) if known else 0.0)  # type: ignore[operator]
    return {
        "x": [point["achieved"] * 100 for point in points],
        "y": values,
        "error_y": {
            "type": "data",
            "array": above,
            "arrayminus": below,
            "thickness": 1,
            "width": 2,
        },
        "customdata": [
            _said(point, each, scale) for point, each in zip(points, found, strict=True)
        ],
    }


def _said(point: Mapping[str, Any], figure: Mapping[str, Any], scale: float) -> str:
    low, high = _scaled(figure.get("low"), scale), _scaled(figure.get("high"), scale)
    interval = "" if low is None or high is None else f"[{low:.4g}, {high:.4g}]"
    samples = (
        f"all {point['samples']:,} samples"
        if point["whole"]
        else f"estimated from {point['samples']:,} of {point['of']:,} samples"
    )
    remark = f"<br>{escape(point['remark'], quote=False)}" if point.get("remark") else ""
    return f"{interval}<br>{samples}{remark}"


def _line(
    curve: Mapping[str, Any],
    dense: float | None,
    metric: Metric,
    scale: float,
    share: bool,
) -> dict[str, Any]:
    """The rising curve that fits the drops, where the axis shows what drops are of.

    Elsewhere a line through the points.
    """
    points = curve["points"]
    start = [0.0], [_scaled(dense, scale)]
    if share and metric.name == "accuracy" and dense is not None and curve["fit"]:
        achieved = {point["sparsity"]: point["achieved"] for point in points}
        x = [achieved[sparsity] * 100 for sparsity, _ in curve["fit"]]
        y = [max(0.0, dense - drop) * scale for _, drop in curve["fit"]]
    else:
        x = [point["achieved"] * 100 for point in points]
        y = [_scaled(point["metrics"].get(metric.name, {}).get("value"), scale) for point in points]
    return {"x": start[0] + x, "y": start[1] + y}


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale
