"""curves.csv of an analysis."""

from __future__ import annotations

from typing import Any

from app.domain.curves_csv import curves_csv
from app.domain.metrics import Kind
from app.web.answers import answers
from app.web.views.common import JSON


def analysis_csv(view: JSON) -> str:
    """Of an analysis as the API shows it: by unit in network order, criterion, rising sparsity."""
    curves = view["curves"]
    rows = [
        (curve["unit"], curve["criterion"], point) for curve in curves for point in curve["points"]
    ]
    return curves_csv(Kind(view["task"]), rows)


def _described() -> dict[int | str, Any]:
    described = answers(None, 200, 404)
    described[200] = {"description": "CSV", "content": {"text/csv": {"schema": {"type": "string"}}}}
    return described


CSV = _described()
