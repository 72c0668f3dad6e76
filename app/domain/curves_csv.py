"""curves.csv: one row a point, safe to open in a spreadsheet.

The first columns have the names that users of Distiller know. Unit ids come from uploads. One that
a spreadsheet would take for a formula (it begins with one of `= + - @`, a tab or a return) gets an
apostrophe in front, which spreadsheets hide; all others are written as they are. Figures are ours
and never changed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from app.domain.metrics import METRICS, Kind

DISTILLER = ("parameter", "sparsity", "top1", "top5", "loss")
COLUMNS = (
    *DISTILLER, "criterion", "achieved", "samples", "of", "low", "high", "drop", "drop_low",
    "drop_high", "kl", "flips", "lost", "gained", "unit", "accuracy",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def safe_text(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def metric_columns(kind: Kind) -> list[tuple[str, str, str]]:
    """`(column, metric, part)` of what the first columns don't have; `mse`, `mse_low`, …"""
    further = [each.name for each in METRICS[kind] if each.name not in ("accuracy", "loss")]
    parts = (("", "value"), ("_low", "low"), ("_high", "high"))
    named = [(name + suffix, name, part) for name in further for suffix, part in parts]
    return [each for each in named if each[0] not in COLUMNS]


def curves_csv(kind: Kind, rows: Iterable[tuple[str, str, Mapping[str, Any]]]) -> str:
    """Text of `rows` (unit, criterion, a curve's point as JSON); what is unknown is empty.

    The metrics of the kind that have no column yet come last, each with its interval, and then what
    was remarked on a point.
    """
    further = metric_columns(kind)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([*COLUMNS, *(column for column, _, _ in further), "remark"])
    for unit, criterion, point in rows:
        metrics: Mapping[str, Mapping[str, Any]] = point["metrics"]
        known = {
            **point,
            "parameter": safe_text(unit),
            "unit": safe_text(unit),
            "criterion": safe_text(criterion),
            "top1": point["accuracy"],
            "top5": metrics.get("top5", {}).get("value"),
        }
        more = [metrics.get(metric, {}).get(part) for _, metric, part in further]
        remark = safe_text(point.get("remark") or "")
        writer.writerow([*(known.get(column) for column in COLUMNS), *more, remark])
    return text.getvalue()
