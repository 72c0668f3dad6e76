"""Figures of a whole network on a split."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from app.domain.errors import Stopped
from worker.engine.batches import (
    batch_bounds,
    default_batch_size,
    evaluating,
    load_batch,
    require_samples,
)
from worker.engine.masks import MaskSet
from worker.engine.objectives import (
    UNDECIDED,
    Evaluation,
    Objective,
    Predictions,
    first_tensor,
    objective_for,
)

if TYPE_CHECKING:
    from worker.engine.formats.datasets import Split
    from worker.engine.graph import CanonicalModel

__all__ = [
    "UNDECIDED",
    "Evaluation",
    "Predictions",
    "batch_bounds",
    "default_batch_size",
    "dense_predictions",
    "evaluate",
    "evaluating",
    "first_tensor",
    "load_batch",
    "paired_with_itself",
    "require_samples",
]


def paired_with_itself(figures: Evaluation) -> Evaluation:
    """The dense network's figures: no answer differs from its own, nor does a finite output."""
    if figures.correct is None:
        return figures
    kl = None if figures.loss is None else 0.0
    return replace(figures, flips=0, lost=0, gained=0, kl=kl)


def evaluate(
    model: CanonicalModel,
    split: Split,
    *,
    masks: MaskSet | None = None,
    reference: Predictions | None = None,
    objective: Objective | None = None,
    batch_size: int | None = None,
    on_progress: Callable[[float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Evaluation:
    """Run the whole network on a split: plain forward calls, nothing reused.

    `masks` are applied for the time of the call and every weight's bits restored. `reference`
    (the dense network's predictions on the same split) gives flips, lost and gained. `objective` is
    found out (`objective_for`) unless given. Raises Stopped between batches when `should_stop()`
    turns true, InputMismatch when outputs and labels don't belong together.
    """
    return _predict(
        model, split, masks, reference, objective, batch_size, on_progress, should_stop
    ).evaluation


def dense_predictions(
    model: CanonicalModel,
    split: Split,
    *,
    batch_size: int | None = None,
    on_progress: Callable[[float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Predictions:
    """The network's predictions as it is, with its figures (paired with itself: no flips)."""
    found = _predict(model, split, None, None, None, batch_size, on_progress, should_stop)
    return Predictions(found.classes, paired_with_itself(found.evaluation))


def _predict(
    model: CanonicalModel,
    split: Split,
    masks: MaskSet | None,
    reference: Predictions | None,
    objective: Objective | None,
    batch_size: int | None,
    on_progress: Callable[[float], None] | None,
    should_stop: Callable[[], bool] | None,
) -> Predictions:
    samples = require_samples(split)
    size = model.fixed_batch or batch_size or default_batch_size(model, split)
    objective = objective or objective_for(model, split)
    classes = objective.answers(samples)
    tally = objective.tally(1)
    with evaluating(model), masks.applied(model) if masks else nullcontext():
        for start, stop in batch_bounds(samples, size):
            if should_stop is not None and should_stop():
                raise Stopped("The evaluation was stopped.", "Start it again to measure it.")
            inputs, labels = load_batch(model, split, start, stop)
            with torch.inference_mode():
                outputs = objective.outputs(model.module(*inputs), labels)
                dense = reference.classes[start:stop] if reference else None
                classes[start:stop] = tally.add(outputs.unsqueeze(0), labels, dense)[0]
            if on_progress is not None:
                on_progress(stop / samples)
    return Predictions(classes, tally.evaluation(0))
