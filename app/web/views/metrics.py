"""What networks are judged by, and the figures of it, as the API gives them."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from app.domain.metrics import METRICS, Kind, Metric, Task, primary
from app.store.tables import Baseline, Dataset
from app.web.views.common import JSON

_BY_TASK = {
    Task.CLASSIFICATION: Kind.SINGLE_LABEL,
    Task.REGRESSION: Kind.REGRESSION,
    Task.LANGUAGE_MODELLING: Kind.LANGUAGE_MODELLING,
}


def kind_of(baseline: Baseline | None, dataset: Dataset) -> Kind:
    """What is predicted: as the baseline found it, and before there is one, as the task suggests.

    Baselines of earlier versions say nothing; all of theirs were classes, one a sample.
    """
    if baseline is None:
        return _BY_TASK.get(Task(dataset.task), Kind.SINGLE_LABEL)
    return Kind(baseline.kind) if baseline.kind in list(Kind) else Kind.SINGLE_LABEL


def judged_by(kind: Kind) -> JSON:
    """`task`, `metric` and `metrics` of an analysis or an experiment."""
    return {
        "task": kind.value,
        "metric": primary(kind).name,
        "metrics": [metric_view(metric) for metric in METRICS[kind]],
    }


def metric_view(metric: Metric) -> JSON:
    return {
        "name": metric.name,
        "label": metric.label,
        "higher_is_better": metric.higher_is_better,
        "fraction": metric.fraction,
    }


def estimates(
    stored: Mapping[str, Any] | None,
    accuracy: float | None = None,
    low: float | None = None,
    high: float | None = None,
    loss: float | None = None,
) -> dict[str, JSON]:
    """`metrics` of one evaluation: as stored; for rows of earlier versions, what they have.

    An analysis can have ten thousand points, so this is written for speed. Columns hold no NaN.
    """
    if stored:
        return {name: _clean(each) for name, each in stored.items()}
    found: dict[str, JSON] = {}
    if accuracy is not None:
        found["accuracy"] = {"value": accuracy, "low": low, "high": high}
    if loss is not None:
        found["loss"] = {"value": loss, "low": None, "high": None}
    return found


def _clean(each: Any) -> JSON:
    given = each if isinstance(each, dict) else {}
    value, low, high = given.get("value"), given.get("low"), given.get("high")
    return {
        "value": value if type(value) is float and isfinite(value) else _number(value),
        "low": low if type(low) is float and isfinite(low) else _number(low),
        "high": high if type(high) is float and isfinite(high) else _number(high),
    }


def _number(value: Any) -> float | None:
    """Whole numbers come without a point; all else is nothing."""
    return value if type(value) is int else None
