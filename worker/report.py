"""A page that stands alone: the curves of one analysis, and the table of the same numbers."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, select_autoescape

from app.domain.metrics import METRICS, Kind, Metric, primary
from app.paths import templates_dir


def write_report(document: dict[str, Any], path: Path) -> None:
    """Write `report.html` for the document of `prunescope analyse`; it loads nothing."""
    environment = Environment(
        loader=FileSystemLoader(templates_dir()), autoescape=select_autoescape()
    )
    environment.filters["figure"] = in_words
    kind = Kind(document["task"])
    html = environment.get_template("report.html").render(
        document=document,
        primary=primary(kind),
        metrics=METRICS[kind],
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


def curves_figure(document: dict[str, Any]) -> go.Figure:
    """The primary metric over sparsity in percent, one line a unit.

    Names are escaped for Plotly's markup.
    """
    metric = primary(Kind(document["task"]))
    scale, unit = (100.0, " %") if metric.fraction else (1.0, "")

    def scaled(estimate: dict[str, Any], part: str) -> float | None:
        return None if estimate[part] is None else estimate[part] * scale

    dense = document["baseline"]["metrics"][metric.name]
    baseline = scaled(dense, "value")
    figure = go.Figure()
    several = len({curve["criterion"] for curve in document["curves"]}) > 1
    for curve in document["curves"]:
        name = f"{curve['unit']} ({curve['criterion']})" if several else curve["unit"]
        points = curve["points"]
        estimates = [point["metrics"][metric.name] for point in points]
        figure.add_scatter(
            x=[0, *(point["achieved"] * 100 for point in points)],
            y=[baseline, *(scaled(estimate, "value") for estimate in estimates)],
            customdata=[[scaled(e, "low"), scaled(e, "high")] for e in (dense, *estimates)],
            name=escape(name, quote=False),
            mode="lines+markers",
            hovertemplate=f"%{{fullData.name}}<br>%{{x:.1f}} % removed: %{{y:.4g}}{unit}"
            " [%{customdata[0]:.4g}, %{customdata[1]:.4g}]<extra></extra>",
        )
    if baseline is not None:
        text = f"baseline {in_words(dense['value'], metric)}{unit}"
        figure.add_hline(y=baseline, line_dash="dash", annotation_text=text)
    figure.update_layout(
        template="plotly_white",
        height=620,
        xaxis={"title": "weights removed from this one layer, %", "range": [0, 100]},
        yaxis={"title": metric.label + ("," + unit if unit else "")},
        margin={"t": 30},
    )
    return figure
