"""Every metric, added up batch by batch and row by row, equals torchmetrics fed with the whole."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from app.domain.metrics import METRICS, Kind
from tests.support.torchmetrics_alone import load
from worker.engine.objectives import (
    IGNORED,
    Evaluation,
    MultiLabel,
    Objective,
    Positions,
    Regression,
    SingleLabel,
)
from worker.engine.objectives.areas import bins_of, edges

torchmetrics = load()
classification = torchmetrics.classification

SEEDS = st.integers(0, 2**32 - 1)
LIMITED = settings(max_examples=40, deadline=None)


def evaluations(
    objective: Objective, outputs: Tensor, labels: Tensor, batch: int, split_rows: bool = False
) -> list[Evaluation]:
    """The figures of all rows of outputs [rows, samples, ...], fed batch by batch."""
    rows, samples = outputs.shape[:2]
    tally = objective.tally(rows)
    for start in range(0, samples, batch):
        own = slice(start, start + batch)
        if split_rows:
            for row in range(rows):
                tally.add(outputs[row : row + 1, own], labels[own], None, row)
        else:
            tally.add(outputs[:, own], labels[own], None)
    return [tally.evaluation(row) for row in range(rows)]


def value(metric: Any, *fed: Tensor) -> float:
    metric.update(*fed)
    return float(metric.compute())


def drawn(seed: int, rows: int, shape: tuple[int, ...], ties: bool) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, *shape, generator=generator) * 3
    return values.round() if ties else values


@LIMITED
@given(
    SEEDS, st.integers(2, 12), st.integers(1, 40), st.integers(1, 17), st.booleans(), st.booleans()
)
def test_single_label(
    seed: int, classes: int, samples: int, batch: int, ties: bool, apart: bool
) -> None:
    outputs = drawn(seed, 3, (samples, classes), ties)
    labels = torch.randint(0, classes, (samples,), generator=torch.Generator().manual_seed(seed))
    found = evaluations(SingleLabel(classes), outputs, labels, batch, apart)
    for logits, evaluation in zip(outputs, found, strict=True):
        said = torch.tensor([row.index(max(row)) for row in logits.tolist()])
        wanted = {
            "accuracy": value(
                classification.MulticlassAccuracy(classes, average="micro"), said, labels
            ),
            "macro_f1": value(classification.MulticlassF1Score(classes), said, labels),
            "loss": float(functional.cross_entropy(logits.double(), labels)),
        }
        for name, expected in wanted.items():
            assert evaluation.metric(name) == pytest.approx(expected, rel=1e-6), name
        assert evaluation.correct == int((said == labels).sum())
        if classes < 5:
            assert evaluation.metric("top5") is None
        elif not ties:
            top = classification.MulticlassAccuracy(classes, average="micro", top_k=5)
            assert evaluation.metric("top5") == pytest.approx(value(top, logits, labels))
        if classes >= 5:
            # Of equal outputs the first are higher: a stable sort says the same.
            order = torch.sort(logits, dim=1, descending=True, stable=True).indices[:, :5]
            hits = (order == labels[:, None]).any(1)
            assert evaluation.metric("top5") == pytest.approx(float(hits.float().mean()))
            assert evaluation.metric("top5") >= evaluation.accuracy


def binned(scores: Tensor, classes: int, labels: Tensor) -> float:
    """torchmetrics' own binned AUROC with our edges as thresholds."""
    # Of a decreasing function of -ln p, its smallest value in a bin is that just below the edge.
    thresholds = torch.tensor(np.concatenate([[0.0], np.exp(-edges()[::-1]), [1.0]]))
    metric = classification.MulticlassAUROC(classes, thresholds=thresholds.float())
    return value(metric, scores.float(), labels)


@LIMITED
@given(SEEDS, st.integers(2, 8), st.integers(40, 120), st.floats(0.0, 6.0))
def test_area_under_the_curve_of_classes(
    seed: int, classes: int, samples: int, skill: float
) -> None:
    labels = torch.arange(samples) % classes
    outputs = drawn(seed, 2, (samples, classes), False)
    outputs += skill * functional.one_hot(labels, classes)
    found = evaluations(SingleLabel(classes), outputs, labels, 13)
    for logits, evaluation in zip(outputs, found, strict=True):
        scores = torch.softmax(logits.double(), 1)
        exact = classification.MulticlassAUROC(classes)
        difference = evaluation.metric("auroc") - value(exact, scores, labels)
        # No more than half of the pairs of a positive and a negative in one bin.
        bins = bins_of(scores.log())
        same = []
        for name in range(classes):
            positive, negative = bins[labels == name, name], bins[labels != name, name]
            same.append(float((positive[:, None] == negative).double().mean()))
        assert abs(difference) <= np.mean(same) / 2 + 1e-6
        assert abs(difference) < 0.02


def test_area_under_the_curve_equals_torchmetrics_binned_with_the_same_thresholds() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 4, (500,), generator=generator)
    outputs = torch.randn(1, 500, 4, generator=generator) * 2
    outputs += 2 * functional.one_hot(labels, 4)
    found = evaluations(SingleLabel(4), outputs, labels, 64)[0]
    expected = binned(torch.softmax(outputs[0].double(), 1), 4, labels)
    assert found.metric("auroc") == pytest.approx(expected, abs=2e-4)


def test_no_area_without_all_classes_with_very_many_or_with_nan() -> None:
    labels = torch.tensor([0, 1, 0, 1])
    assert evaluations(SingleLabel(3), torch.randn(1, 4, 3), labels, 4)[0].metric("auroc") is None
    wide = SingleLabel(101)
    whole = torch.arange(101)
    assert evaluations(wide, torch.randn(1, 101, 101), whole, 50)[0].metric("auroc") is None
    outputs = torch.randn(2, 4, 2)
    outputs[0, 1, 1] = math.nan
    first, second = evaluations(SingleLabel(2), outputs, labels, 3)
    assert first.metric("auroc") is None
    assert second.metric("auroc") is not None


def test_nan_is_wrong_in_every_metric_of_classes() -> None:
    outputs = torch.eye(6).repeat(1, 2, 1) * 5
    labels = torch.arange(6).repeat(2)
    outputs[0, 3, 0] = math.nan
    found = evaluations(SingleLabel(6), outputs, labels, 5)[0]
    assert (found.correct, found.loss) == (11, None)
    assert found.metric("top5") == pytest.approx(11 / 12)
    # The class of the spoilt sample is said once, rightly, and occurs twice: 2 * 1 / (1 + 2).
    assert found.metric("macro_f1") == pytest.approx((5 + 2 / 3) / 6)
    assert found.as_json()["metrics"]["loss"] == {"value": None, "low": None, "high": None}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_outputs_of_other_types(dtype: torch.dtype) -> None:
    outputs = torch.randn(2, 30, 7).to(dtype)
    labels = torch.arange(30) % 7
    for logits, found in zip(outputs, evaluations(SingleLabel(7), outputs, labels, 8), strict=True):
        assert found.correct == int((logits.double().argmax(1) == labels).sum())
        loss = float(functional.cross_entropy(logits.double(), labels))
        assert found.loss == pytest.approx(loss, rel=1e-12)


@LIMITED
@given(
    SEEDS,
    st.integers(2, 9),
    st.integers(1, 12),
    st.lists(st.integers(1, 5), min_size=1, max_size=2),
    st.integers(1, 7),
    st.booleans(),
    st.sampled_from([Kind.PER_POSITION, Kind.LANGUAGE_MODELLING]),
)
def test_positions(
    seed: int,
    classes: int,
    samples: int,
    shape: list[int],
    batch: int,
    apart: bool,
    kind: Kind,
) -> None:
    places = tuple(shape)
    generator = torch.Generator().manual_seed(seed)
    outputs = drawn(seed, 2, (samples, *places, classes), False)
    labels = torch.randint(0, classes, (samples, *places), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = IGNORED
    found = evaluations(Positions(kind, classes, places), outputs, labels, batch, apart)
    kept = labels != IGNORED
    for logits, evaluation in zip(outputs, found, strict=True):
        assert evaluation.judged == int(kept.sum())
        if not kept.any():
            assert evaluation.loss is None
            continue
        said, truth = logits.argmax(-1)[kept], labels[kept]
        wanted = {
            "accuracy": value(
                classification.MulticlassAccuracy(classes, average="micro", ignore_index=IGNORED),
                logits.argmax(-1).reshape(-1),
                labels.reshape(-1),
            ),
            "loss": float(functional.cross_entropy(logits[kept].double(), truth)),
        }
        if kind is Kind.PER_POSITION:
            f1 = classification.MulticlassF1Score(classes, ignore_index=IGNORED)
            wanted["macro_f1"] = value(f1, logits.argmax(-1).reshape(-1), labels.reshape(-1))
        else:
            perplexity = torchmetrics.text.Perplexity(ignore_index=IGNORED)
            flat = logits.reshape(samples, -1, classes)
            wanted["perplexity"] = value(perplexity, flat, labels.reshape(samples, -1))
            if classes >= 5:
                top = classification.MulticlassAccuracy(classes, average="micro", top_k=5)
                wanted["top5"] = value(top, logits[kept], truth)
        for name, expected in wanted.items():
            assert evaluation.metric(name) == pytest.approx(expected, rel=1e-5), name
        assert evaluation.correct == int((said == truth).sum())


def test_nan_in_ignored_positions_does_no_harm_and_elsewhere_is_wrong() -> None:
    outputs = torch.eye(3)[None, None].repeat(1, 2, 1, 1) * 4
    labels = torch.arange(3).repeat(2, 1)
    labels[0, 1] = IGNORED
    outputs[0, 0, 1] = math.nan
    objective = Positions(Kind.PER_POSITION, 3, (3,))
    found = evaluations(objective, outputs, labels, 2)[0]
    assert (found.correct, found.judged) == (5, 5)
    assert found.loss is not None
    outputs[0, 1, 1] = math.nan
    found = evaluations(objective, outputs, labels, 2)[0]
    assert (found.correct, found.judged, found.loss) == (4, 5, None)


@LIMITED
@given(SEEDS, st.integers(1, 7), st.integers(2, 40), st.integers(1, 17), st.booleans())
def test_multi_label(seed: int, width: int, samples: int, batch: int, apart: bool) -> None:
    outputs = drawn(seed, 3, (samples, width), False)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (samples, width), generator=generator)
    fed = labels if seed % 2 else labels.float()
    found = evaluations(MultiLabel(width), outputs, fed, batch, apart)
    present = bool((labels.any(0) & (1 - labels).any(0)).all())
    for logits, evaluation in zip(outputs, found, strict=True):
        said = (logits > 0).long()
        wanted = {
            "accuracy": float((said == labels).double().mean()),
            "exact_match": value(classification.MultilabelExactMatch(width), said, labels)
            if width > 1
            else float((said == labels).double().mean()),
            "loss": float(
                functional.binary_cross_entropy_with_logits(logits.double(), labels.double())
            ),
        }
        if width > 1:
            wanted["macro_f1"] = value(classification.MultilabelF1Score(width), said, labels)
        for name, expected in wanted.items():
            assert evaluation.metric(name) == pytest.approx(expected, rel=1e-5), name
        if not present:
            assert evaluation.metric("auroc") is None
        elif width > 1:
            exact = classification.MultilabelAUROC(width)
            scores = torch.sigmoid(logits.double())
            difference = evaluation.metric("auroc") - value(exact, scores, labels)
            assert abs(difference) < 0.5 / min(20, samples / 4)


@LIMITED
@given(SEEDS, st.integers(1, 4), st.integers(3, 40), st.integers(1, 17), st.booleans())
def test_regression(seed: int, width: int, samples: int, batch: int, apart: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randn(samples, width, generator=generator) * 10 + 100
    outputs = labels + torch.randn(2, samples, width, generator=generator)
    mean = labels.double().mean(0).numpy()
    found = evaluations(Regression((width,), mean), outputs, labels, batch, apart)
    for given_, evaluation in zip(outputs, found, strict=True):
        errors = given_.double() - labels.double()
        r2 = torchmetrics.regression.R2Score().set_dtype(torch.float64)
        wanted = {
            "mse": float(errors.square().mean()),
            "mae": float(errors.abs().mean()),
            "r2": value(r2, given_.double(), labels.double()),
        }
        for name, expected in wanted.items():
            assert evaluation.metric(name) == pytest.approx(expected, rel=1e-6), name
        assert evaluation.loss == evaluation.metric("mse")
        assert (evaluation.correct, evaluation.accuracy, evaluation.flips) == (None, None, None)
        for name, metric in (
            ("mse", torchmetrics.regression.MeanSquaredError()),
            ("mae", torchmetrics.regression.MeanAbsoluteError()),
        ):
            ours = evaluation.metric(name)
            assert ours == pytest.approx(
                value(metric, given_.reshape(-1), labels.reshape(-1)), 1e-4
            )


def test_regression_without_a_finite_error_or_a_variance() -> None:
    labels = torch.tensor([1.0, 2.0, 3.0])
    outputs = torch.tensor([[[1.0], [math.nan], [3.0]], [[1.0], [2.0], [4.0]]])
    spoilt, sound = evaluations(Regression((), np.array([2.0])), outputs, labels, 2)
    assert [spoilt.metric(m.name) for m in METRICS[Kind.REGRESSION]] == [None] * 4
    assert sound.metric("mse") == pytest.approx(1 / 3)
    same = evaluations(Regression((), np.array([1.0])), outputs[1:], torch.ones(3), 2)[0]
    assert same.metric("r2") is None


def test_what_is_said_as_json_is_complete_and_finite() -> None:
    found = evaluations(SingleLabel(6), torch.randn(1, 20, 6), torch.arange(20) % 6, 7)[0]
    told = found.as_json(0.9)
    assert list(told) == [
        "kind", "samples", "correct", "accuracy", "low", "high", "loss", "kl", "flips",
        "lost", "gained", "metrics",
    ]  # fmt: skip
    assert list(told["metrics"]) == [metric.name for metric in METRICS[Kind.SINGLE_LABEL]]
    assert told["low"] == told["metrics"]["accuracy"]["low"] < told["accuracy"] < told["high"]
    narrow = found.as_json(0.5)
    assert told["low"] < narrow["low"]
