"""A page that stands alone: the curves of one analysis, and the table of the same numbers."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, select_autoescape

from app.paths import templates_dir


def write_report(document: dict[str, Any], path: Path) -> None:
    """Write `report.html` for the document of `prunescope analyse`; it loads nothing."""
    environment = Environment(
        loader=FileSystemLoader(templates_dir()), autoescape=select_autoescape()
    )
    html = environment.get_template("report.html").render(
        document=document,
        chart=curves_figure(document).to_html(
            full_html=False, include_plotlyjs=True, config={"displaylogo": False}
        ),
    )
    path.write_text(html)


def curves_figure(document: dict[str, Any]) -> go.Figure:
    """Accuracy over sparsity in percent, one line a unit; names are escaped for Plotly's markup."""
    baseline = document["baseline"]["accuracy"] * 100
    figure = go.Figure()
    several = len({curve["criterion"] for curve in document["curves"]}) > 1
    for curve in document["curves"]:
        name = f"{curve['unit']} ({curve['criterion']})" if several else curve["unit"]
        points = curve["points"]
        figure.add_scatter(
            x=[0, *(point["achieved"] * 100 for point in points)],
            y=[baseline, *(point["accuracy"] * 100 for point in points)],
            customdata=[[baseline, baseline], *([p["low"] * 100, p["high"] * 100] for p in points)],
            name=escape(name, quote=False),
            mode="lines+markers",
            hovertemplate="%{fullData.name}<br>%{x:.1f} % removed: %{y:.2f} %"
            " [%{customdata[0]:.2f}, %{customdata[1]:.2f}]<extra></extra>",
        )
    figure.add_hline(y=baseline, line_dash="dash", annotation_text=f"baseline {baseline:.2f} %")
    figure.update_layout(
        template="plotly_white",
        height=620,
        xaxis={"title": "weights removed from this one layer, %", "range": [0, 100]},
        yaxis={"title": "accuracy, %"},
        margin={"t": 30},
    )
    return figure
