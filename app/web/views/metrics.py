"""What networks are judged by, and the figures of it, as the API gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.domain.metrics import METRICS, Kind, Metric, Task, primary
from app.store.tables import Baseline, Dataset
from app.web.numbers import finite
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


def estimate(value: float | None, low: float | None = None, high: float | None = None) -> JSON:
    return {"value": finite(value), "low": finite(low), "high": finite(high)}


def estimates(
    stored: Mapping[str, Any] | None,
    accuracy: float | None = None,
    low: float | None = None,
    high: float | None = None,
    loss: float | None = None,
) -> dict[str, JSON]:
    """`metrics` of one evaluation: as stored; for rows of earlier versions, what they have."""
    if stored:
        return {name: estimate(**_known(each)) for name, each in stored.items()}
    found: dict[str, JSON] = {}
    if accuracy is not None:
        found["accuracy"] = estimate(accuracy, low, high)
    if loss is not None:
        found["loss"] = estimate(loss)
    return found


def _known(each: Any) -> dict[str, float | None]:
    given = each if isinstance(each, Mapping) else {}
    return {name: _number(given.get(name)) for name in ("value", "low", "high")}


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
