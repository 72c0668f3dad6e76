"""What networks are judged by, and the figures of it, as the API gives them."""

from __future__ import annotations

from app.domain.curve_json import judged_by
from app.domain.metrics import Kind, Task
from app.domain.point_facts import estimates
from app.store.tables import Baseline, Dataset

__all__ = ["estimates", "judged_by", "kind_of"]

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
