"""Figures of a network as they are told: an evaluation, or an epoch, as JSON."""

from __future__ import annotations

from typing import Any

from app.domain.metrics import Kind
from app.domain.statistics import DEFAULT_CONFIDENCE, wilson
from worker.engine.evaluation import Evaluation
from worker.engine.retraining import EpochResult


def figures(evaluation: Evaluation, confidence: float = DEFAULT_CONFIDENCE) -> dict[str, Any]:
    """`{kind, samples, correct, accuracy, low, high, loss, flips, lost, gained, metrics}`."""
    if hasattr(evaluation, "as_json"):
        return evaluation.as_json(confidence)
    interval = wilson(evaluation.correct, evaluation.samples, confidence)
    bounds = {"low": interval.low, "high": interval.high}
    nothing = {"value": None, "low": None, "high": None}
    return {
        "kind": Kind.SINGLE_LABEL.value,
        "samples": evaluation.samples,
        "correct": evaluation.correct,
        "accuracy": evaluation.accuracy,
        **bounds,
        "loss": evaluation.loss,
        "flips": evaluation.flips,
        "lost": evaluation.lost,
        "gained": evaluation.gained,
        "metrics": {
            "accuracy": {"value": evaluation.accuracy, **bounds},
            "top5": nothing,
            "macro_f1": nothing,
            "auroc": nothing,
            "loss": {"value": evaluation.loss, "low": None, "high": None},
        },
    }


def epoch_figures(result: EpochResult) -> dict[str, Any]:
    """`{step, epoch, train_loss, learning_rate, tune}`; `tune` as `figures`."""
    if hasattr(result, "tune"):
        tune = figures(result.tune)
    else:
        correct = round(result.tune_accuracy * result.tune_samples)
        tune = figures(Evaluation(result.tune_samples, correct, result.tune_loss))
    return {
        "step": result.step,
        "epoch": result.epoch,
        "train_loss": result.train_loss,
        "learning_rate": result.learning_rate,
        "tune": tune,
    }
