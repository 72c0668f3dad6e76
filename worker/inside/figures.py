"""Figures of a network as they are told: an evaluation, or an epoch, as JSON."""

from __future__ import annotations

from typing import Any

from app.domain.statistics import DEFAULT_CONFIDENCE
from worker.engine.evaluation import Evaluation
from worker.engine.retraining import EpochResult


def figures(evaluation: Evaluation, confidence: float = DEFAULT_CONFIDENCE) -> dict[str, Any]:
    """`{kind, samples, correct, accuracy, low, high, loss, kl, flips, lost, gained, metrics}`."""
    return evaluation.as_json(confidence)


def epoch_figures(result: EpochResult) -> dict[str, Any]:
    """`{step, epoch, train_loss, learning_rate, tune}`; `tune` as `figures`."""
    return {
        "step": result.step,
        "epoch": result.epoch,
        "train_loss": result.train_loss,
        "learning_rate": result.learning_rate,
        "tune": result.tune,
    }
