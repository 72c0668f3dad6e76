"""curves.csv: one row a point, safe to open in a spreadsheet.

Unit ids come from uploads. One that a spreadsheet would take for a formula (it begins with one of
`= + - @`, a tab or a return) gets an apostrophe in front, which spreadsheets hide; all others are
written as they are. Figures are ours and never changed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from app.domain.metrics import METRICS, Kind
from app.store.tables import Analysis
from app.web.answers import answers
from app.web.views.analyses import PointFacts, analysed_units, point_view
from app.web.views.common import JSON

COLUMNS = (
    "unit", "criterion", "sparsity", "achieved", "accuracy", "low", "high", "loss", "samples",
    "flips", "lost", "gained",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def safe_text(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def metric_columns(kind: Kind) -> list[tuple[str, str, str]]:
    """`(column, metric, part)` of what the first columns don't have; `mse`, `mse_low`, …"""
    further = [each.name for each in METRICS[kind] if each.name not in COLUMNS]
    parts = (("", "value"), ("_low", "low"), ("_high", "high"))
    return [(name + suffix, name, part) for name in further for suffix, part in parts]


def curves_csv(
    row: Analysis, units: Sequence[JSON], points: Iterable[PointFacts], kind: Kind
) -> str:
    """Rows by unit in network order, then criterion and rising sparsity; what is unknown is empty.

    The metrics of the kind that have no column yet come last, each with its interval.
    """
    further = metric_columns(kind)
    position = {unit: index for index, unit in enumerate(analysed_units(row, units))}
    shown = sorted(
        (point for point in points if point.unit in position),
        key=lambda point: (position[point.unit], point.criterion, point.level),
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([*COLUMNS, *(column for column, _, _ in further)])
    for point in shown:
        figures = point_view(point)
        names = (safe_text(point.unit), safe_text(point.criterion))
        metrics = figures["metrics"]
        more = [metrics.get(metric, {}).get(part) for _, metric, part in further]
        writer.writerow([*names, *(figures[column] for column in COLUMNS[2:]), *more])
    return text.getvalue()


def _described() -> dict[int | str, Any]:
    described = answers(None, 200, 404)
    described[200] = {"description": "CSV", "content": {"text/csv": {"schema": {"type": "string"}}}}
    return described


CSV = _described()
