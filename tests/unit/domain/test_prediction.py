"""Predictions from curves, against numpy's interpolation and hand-worked costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.metrics import METRICS, MSE, PERPLEXITY, R2, TOP5
from app.domain.prediction import (
    CurvePoint,
    UnitFacts,
    curve_point,
    interpolate,
    plan_costs,
    predict_accuracy,
    predict_metric,
    unpaired_point,
)
from app.domain.sizes import packed_bytes

grids = st.lists(
    st.tuples(st.floats(0.001, 1), st.floats(0, 1), st.floats(0, 0.1)),
    min_size=1,
    max_size=12,
    unique_by=lambda row: row[0],
).map(lambda rows: [CurvePoint(*row) for row in sorted(rows)])


@given(grids, st.floats(0.1, 1), st.floats(0, 1))
def test_interpolation_is_numpys(points: list[CurvePoint], base: float, at: float) -> None:
    xs = [0.0, *(p.sparsity for p in points)]
    accuracy, deviation = interpolate(points, base, at)
    assert accuracy == pytest.approx(np.interp(at, xs, [base, *(p.value for p in points)]))
    assert deviation == pytest.approx(
        np.interp(at, xs, [0.0, *(p.deviation for p in points)]), abs=1e-12
    )


def test_nothing_removed_is_the_baseline() -> None:
    curves = {"a": [CurvePoint(0.5, 0.3, 0.01)]}
    assert predict_accuracy(curves, 0.9, {"a": 0.0}) == (0.9, 0.9, 0.9)
    assert predict_accuracy(curves, 0.9, {}) == (0.9, 0.9, 0.9)


def test_losses_multiply_and_gains_do_not_pay() -> None:
    curves = {
        "a": [CurvePoint(0.5, 0.72, 0.0)],
        "b": [CurvePoint(0.5, 0.45, 0.0)],
        "c": [CurvePoint(0.5, 0.99, 0.0)],
    }
    accuracy, _, _ = predict_accuracy(curves, 0.9, {"a": 0.5, "b": 0.5, "c": 0.5})
    assert accuracy == pytest.approx(0.9 * (0.72 / 0.9) * (0.45 / 0.9))


def test_the_band_adds_variances() -> None:
    curves = {"a": [CurvePoint(0.5, 0.8, 0.03)], "b": [CurvePoint(0.5, 0.8, 0.04)]}
    accuracy, low, high = predict_accuracy(curves, 0.8, {"a": 0.5, "b": 0.5})
    assert high - accuracy == pytest.approx(1.959964 * 0.05, rel=1e-6)
    assert accuracy - low == pytest.approx(high - accuracy)


@given(grids, st.floats(0.1, 1), st.floats(0, 1))
def test_a_prediction_is_an_accuracy(points: list[CurvePoint], base: float, at: float) -> None:
    accuracy, low, high = predict_accuracy({"a": points}, base, {"a": at})
    assert 0.0 <= low <= accuracy <= high <= 1.0 + 1e-12


def test_a_network_that_knows_nothing_predicts_nothing() -> None:
    assert predict_accuracy({"a": [CurvePoint(0.5, 0.3, 0.1)]}, 0.0, {"a": 0.5}) == (0.0, 0.0, 0.0)


def test_errors_add_up_and_gains_do_not_pay() -> None:
    curves = {
        "a": [CurvePoint(0.5, 0.7, 0.0)],
        "b": [CurvePoint(0.5, 0.9, 0.0)],
        "c": [CurvePoint(0.5, 0.1, 0.0)],
    }
    plan = {"a": 0.5, "b": 0.25, "c": 0.5, "unknown": 0.9}
    error, _, _ = predict_metric(curves, 0.4, plan, MSE)
    assert error == pytest.approx(0.4 + (0.7 - 0.4) + (0.9 - 0.4) / 2)
    explained, low, high = predict_metric(
        {"a": [CurvePoint(0.5, 0.3, 0.2)], "b": [CurvePoint(0.5, -0.9, 0.0)]}, 0.8,
        {"a": 0.5, "b": 0.5}, R2,
    )  # fmt: skip
    # Below zero is possible for it: worse than the mean.
    assert explained == pytest.approx(0.8 - 0.5 - 1.7)
    assert high - explained == pytest.approx(explained - low)
    assert explained - low == pytest.approx(1.959964 * 0.2, rel=1e-6)


def test_an_error_is_never_below_nothing() -> None:
    curves = {"a": [CurvePoint(0.5, 0.1, 3.0)]}
    assert predict_metric(curves, 0.05, {"a": 0.5}, MSE)[1] == 0.0
    value, low, high = predict_metric(curves, 30.0, {"a": 0.5}, PERPLEXITY)
    assert (value, low < 30 < high) == (30.0, True)


@given(grids, st.floats(0.1, 1), st.floats(0, 1))
def test_no_metric_is_predicted_better_than_dense(
    points: list[CurvePoint], base: float, at: float
) -> None:
    for metric in {metric for known in METRICS.values() for metric in known}:
        value, low, high = predict_metric({"a": points}, base, {"a": at}, metric)
        worse = base - value if metric.higher_is_better else value - base
        assert worse >= -1e-12
        assert low <= value <= high


def test_a_metric_without_pairs_takes_the_width_of_its_interval() -> None:
    assert unpaired_point(0.5, 3.0, 2.0, 4.0).deviation == pytest.approx(1 / 1.959964, rel=1e-6)
    assert unpaired_point(0.5, 3.0, None, None) == CurvePoint(0.5, 3.0, 0.0)
    _, low, high = predict_metric(
        {"a": [unpaired_point(0.5, 0.8, 0.7, 0.9)]}, 0.9, {"a": 0.5}, TOP5
    )
    assert (low, high) == (pytest.approx(0.7), pytest.approx(0.9))


def test_curve_point_carries_the_paired_deviation() -> None:
    assert curve_point(0.5, 0.9, 0, 0, 100).deviation == 0.0
    assert curve_point(0.5, 0.9, 5, 5, 100).deviation == pytest.approx((0.1 / 100) ** 0.5)


def test_costs_by_hand() -> None:
    units = [UnitFacts("a", 100, 10, 4, 1000), UnitFacts("b", 50, 5, 4, 200)]
    sparsity, parameters, macs, stored = plan_costs(
        units, {"a": 0.9}, total_parameters=160, total_macs=1200, total_bytes=640
    )
    assert sparsity == 90 / 150
    assert parameters == 70
    assert macs == 300
    packed_a = min(400, 13 + 40, 11 * 4 + 10 * 6)
    packed_b = min(200, 7 + 200, 6 * 4 + 50 * 6)
    assert stored == 640 - 600 + packed_a + packed_b


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_packed_never_exceeds_dense(rows: int, columns: int, data: st.DataObject) -> None:
    size = rows * columns
    nonzero = data.draw(st.integers(0, size))
    assert 0 < packed_bytes(size, nonzero, rows, 4) <= size * 4 or size == 0
