"""What networks are judged by: one entry a metric, in the order in which people look at them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Task(StrEnum):
    """What a data set is for, as its uploader says."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    LANGUAGE_MODELLING = "language-modelling"


class Kind(StrEnum):
    """What is predicted, found out from the task, the labels and the network's output.

    single-label: one class a sample; multi-label: any number of yes/no labels a sample;
    per-position: one class for each position of a sample; regression: numbers; language-modelling:
    the next token at each position.
    """

    SINGLE_LABEL = "single-label"
    MULTI_LABEL = "multi-label"
    PER_POSITION = "per-position"
    REGRESSION = "regression"
    LANGUAGE_MODELLING = "language-modelling"


@dataclass(frozen=True)
class Metric:
    """`fraction`: between 0 and 1 and shown as a percentage."""

    name: str
    label: str
    higher_is_better: bool
    fraction: bool


ACCURACY = Metric("accuracy", "Accuracy", True, True)
TOP5 = Metric("top5", "Top-5 accuracy", True, True)
MACRO_F1 = Metric("macro_f1", "Macro F1", True, True)
AUROC = Metric("auroc", "AUROC", True, True)
EXACT_MATCH = Metric("exact_match", "All labels right", True, True)
MSE = Metric("mse", "Mean squared error", False, False)
MAE = Metric("mae", "Mean absolute error", False, False)
R2 = Metric("r2", "R²", True, False)
PERPLEXITY = Metric("perplexity", "Perplexity", False, False)
LOSS = Metric("loss", "Loss", False, False)

METRICS: dict[Kind, tuple[Metric, ...]] = {
    Kind.SINGLE_LABEL: (ACCURACY, TOP5, MACRO_F1, AUROC, LOSS),
    Kind.MULTI_LABEL: (ACCURACY, EXACT_MATCH, MACRO_F1, AUROC, LOSS),
    Kind.PER_POSITION: (ACCURACY, MACRO_F1, LOSS),
    Kind.REGRESSION: (MSE, MAE, R2, LOSS),
    Kind.LANGUAGE_MODELLING: (PERPLEXITY, ACCURACY, TOP5, LOSS),
}
"""The first of each is the primary one: the axis of the curves until another is chosen, and what
the best epoch is picked by."""


def primary(kind: Kind) -> Metric:
    return METRICS[kind][0]
