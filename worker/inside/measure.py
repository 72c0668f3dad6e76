"""Run a whole plan's pruning on a split, beside the dense network."""

from __future__ import annotations

from typing import Any

from worker.engine.evaluation import dense_predictions, evaluate
from worker.inside.figures import figures
from worker.inside.job import InsideJob
from worker.inside.opening import open_both
from worker.inside.pruning import (
    dense_network,
    learning_split,
    masks_of,
    norms_of,
    pruned_network,
)


def run(job: InsideJob) -> dict[str, Any]:
    """Files as `open_both`, arguments `split`, and `pruning` as `masks_of` takes it.

    Tells `progress` (`{fraction}`); gives the figures of both, as `dense` and `pruned`.
    """
    opened = open_both(job)
    split = opened.split(job.arguments["split"])
    pruning = job.arguments["pruning"]
    train = learning_split(opened.dataset, pruning)
    masks = masks_of(opened.model, opened.units, pruning, train, job)
    norms = norms_of(job, opened.dataset, pruning)
    with dense_network(opened.model, norms) as network:
        dense = dense_predictions(
            network,
            split,
            on_progress=lambda fraction: tell_progress(job, fraction / 2),
            should_stop=job.should_stop,
        )
    with pruned_network(opened.model, masks, norms) as network:
        pruned = evaluate(
            network,
            split,
            reference=dense,
            on_progress=lambda fraction: tell_progress(job, 0.5 + fraction / 2),
            should_stop=job.should_stop,
        )
    return {"dense": figures(dense.evaluation), "pruned": figures(pruned)}


def tell_progress(job: InsideJob, fraction: float) -> None:
    job.tell("progress", {"fraction": fraction, "seconds": None})
