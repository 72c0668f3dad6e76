"""The page that stands alone: every point in its table, intervals and fits in its chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worker.report import curves_figure, knees, write_report


def point(sparsity: float, accuracy: float, samples: int = 100, **more: Any) -> dict[str, Any]:
    drop = 0.9 - accuracy
    estimate = {"value": accuracy, "low": accuracy - 0.03, "high": accuracy + 0.02}
    return {
        "sparsity": sparsity,
        "achieved": sparsity,
        "accuracy": accuracy,
        "loss": 0.5,
        "low": accuracy - 0.03,
        "high": accuracy + 0.02,
        "samples": samples,
        "of": 100,
        "whole": samples == 100,
        "interval": "population" if samples == 100 else "split",
        "settled": True,
        "preview": False,
        "drop": drop,
        "drop_low": drop - 0.02,
        "drop_high": drop + 0.03,
        "kl": 0.01,
        "flips": 3,
        "lost": 2,
        "gained": 1,
        "metrics": {
            "accuracy": estimate,
            **{
                name: {"value": 0.5, "low": None, "high": None}
                for name in ("top5", "macro_f1", "auroc", "loss")
            },
        },
        "remark": None,
    } | more


def document(**more: Any) -> dict[str, Any]:
    knee = {"sparsity": 0.5, "drop": 0.05, "low": 0.03, "high": 0.08}
    return {
        "model": "net.pt2",
        "dataset": "data.npz",
        "split": "tune",
        "seed": 0,
        "confidence": 0.95,
        "evaluation": {
            "mode": "adaptive",
            "half_width": 0.01,
            "relative": 0.1,
            "confidence": 0.95,
            "tolerance": 0.06,
            "method": "looks",
            "precision": "float32",
            "refine": 0,
        },
        "recalibrate_batch_norm": False,
        "task": "single-label",
        "metric": "accuracy",
        "metrics": [],
        "cells": {"total": 4, "known": 0, "done": 3, "settled": 3},
        "samples_evaluated": 260,
        "baseline": {
            "accuracy": 0.9,
            "loss": 0.4,
            "low": 0.85,
            "high": 0.95,
            "samples": 100,
            "metrics": {"accuracy": {"value": 0.9, "low": 0.85, "high": 0.95}},
            "arithmetic": None,
        },
        "remarks": [],
        "curves": [
            {
                "unit": "conv.weight",
                "criterion": "magnitude",
                "points": [point(0.5, 0.85), point(0.9, 0.4, samples=32)],
                "knee": knee,
                "fit": [[0.5, 0.05], [0.9, 0.5]],
                "remark": None,
            },
            {
                "unit": "conv.weight",
                "criterion": "wanda",
                "points": [point(0.5, 0.88)],
                "knee": None,
                "fit": [[0.5, 0.02]],
                "remark": None,
            },
        ],
    } | more


def test_points_are_points_and_fits_are_lines() -> None:
    lines, marks = curves_figure(document()).data[0:2]
    assert (lines.mode, marks.mode) == ("lines", "markers")
    assert list(lines.x) == [0.0, 50.0, 90.0]
    assert list(lines.y) == pytest.approx([90.0, 85.0, 40.0])
    assert list(marks.x) == [50.0, 90.0]
    assert list(marks.y) == [85.0, 40.0]
    assert list(marks.error_y.array) == pytest.approx([2.0, 2.0])
    assert list(marks.error_y.arrayminus) == pytest.approx([3.0, 3.0])
    assert list(marks.marker.symbol) == ["circle", "circle-open"]
    assert "all 100 samples" in marks.customdata[0]
    assert "estimated from 32 of 100 samples" in marks.customdata[1]


def test_criteria_of_a_unit_share_its_colour_and_differ_in_their_dash() -> None:
    first, _, second, _ = curves_figure(document()).data
    assert first.line.color == second.line.color
    assert first.line.dash != second.line.dash
    assert first.name == "conv.weight (magnitude)"


def test_where_the_drop_is_no_accuracy_lines_go_through_the_points() -> None:
    said = document(task="regression")
    for curve in said["curves"]:
        for each in curve["points"]:
            each["metrics"] = {"mse": {"value": 0.2, "low": 0.1, "high": 0.3}}
    said["baseline"]["metrics"] = {"mse": {"value": 0.1, "low": 0.05, "high": 0.2}}
    line = curves_figure(said).data[0]
    assert list(line.y) == pytest.approx([0.1, 0.2, 0.2])


def test_knees_stand_beside_each_other() -> None:
    ((unit, found),) = knees(document())
    assert unit == "conv.weight"
    assert found[0]["sparsity"] == 0.5
    assert found[1] is None


def test_the_page_says_everything_and_loads_nothing(tmp_path: Path) -> None:
    said = document(
        remarks=[{"unit": "head.weight", "criterion": "wanda", "reason": "It is all zero."}],
        recalibrate_batch_norm=True,
    )
    said["curves"][0]["unit"] = "<b>conv</b>"
    said["curves"][0]["points"][0]["remark"] = "<i>odd</i>"
    write_report(said, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "It is all zero." in page
    assert "batch norms re-estimated" in page
    assert "within ± 1.00 points or 10 %" in page
    assert "3 points from 260 evaluated samples" in page
    assert page.count("<tr") == 1 + 1 + 1 + 2 + 1 + 3
    assert "<b>conv</b>" not in page
    assert "<i>odd</i>" not in page
    assert "<script src=" not in page


@pytest.mark.parametrize(
    ("arithmetic", "words"),
    [
        (
            {"used": "float32", "reason": "It has hooks.", "differing": None},
            "float32, not bfloat16: It has hooks.",
        ),
        (
            {"used": "bfloat16", "reason": None, "answers": 1024, "differing": 3},
            "bfloat16 changes 3 of 1,024 answers of the dense network.",
        ),
        (
            {"used": "bfloat16", "differing": None, "loss": 0.25049, "loss_float32": None},
            "the dense network's loss is 0.2505, in float32 not finite.",
        ),
    ],
)
def test_the_page_says_what_bfloat16_changes(
    tmp_path: Path, arithmetic: dict[str, Any], words: str
) -> None:
    said = document()
    said["baseline"]["arithmetic"] = arithmetic
    write_report(said, tmp_path / "report.html")
    assert words in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("mode", ["exact", "knee"])
def test_the_page_says_how_points_were_measured(tmp_path: Path, mode: str) -> None:
    said = document()
    said["evaluation"]["mode"] = mode
    write_report(said, tmp_path / "report.html")
    words = {"exact": "on all samples", "knee": "within the tolerance"}[mode]
    assert words in (tmp_path / "report.html").read_text()
