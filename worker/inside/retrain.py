"""Prune and retrain once, from the first epoch or from a saved one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.engine.evaluation import evaluate
from worker.engine.formats.checkpoints import write_safetensors
from worker.engine.latency import latency_milliseconds
from worker.engine.retraining import EpochResult, RetrainSettings
from worker.engine.retraining import retrain as retrain_model
from worker.engine.train_state import put_back
from worker.inside.figures import epoch_figures, figures
from worker.inside.job import InsideJob
from worker.inside.opening import open_both
from worker.inside.pruning import learning_split, masks_of, norms_of, pruned_network

BEST = "best.safetensors"


def run(job: InsideJob) -> dict[str, Any]:
    """Files as `open_both`, and `state` to go on from; arguments as below.

    `pruning` as `masks_of`, `settings` (RetrainSettings), `splits` `{train, tune, final}`, `dense`:
    whether the unpruned network is wanted too.

    Tells `dense` (`{figures, latency_ms}`) if asked to, `pruned` (`{removed: {unit: entries},
    figures}`: before any training), and `epoch` for each. A new epoch's whole training state is a
    file of the folder by then, whose name is `file`; one told again after a break has none.

    Gives `{best_epoch, figures, latency_ms}` of the best epoch, whose weights are the file
    "best.safetensors".
    """
    arguments = job.arguments
    opened = open_both(job)
    model = opened.model
    train, tune, final = (
        opened.split(arguments["splits"][name]) for name in ("train", "tune", "final")
    )
    if arguments["dense"]:
        evaluation = evaluate(model, final, should_stop=job.should_stop)
        latency = latency_milliseconds(model)
        job.tell("dense", {"figures": figures(evaluation), "latency_ms": latency})
    learnt_from = learning_split(opened.dataset, arguments["pruning"])
    masks = masks_of(model, opened.units, arguments["pruning"], learnt_from, job)
    norms = norms_of(job, opened.dataset, arguments["pruning"])
    with pruned_network(model, masks, norms) as network:
        before = evaluate(network, final, should_stop=job.should_stop)
    job.tell("pruned", {"removed": masks.removed(), "figures": figures(before)})
    result = retrain_model(
        model,
        masks,
        train,
        tune,
        RetrainSettings(**arguments["settings"]),
        resume_from=job.files.get("state"),
        save_to=job.folder / "state",
        on_epoch=lambda epoch: tell_epoch(job, epoch),
        should_stop=job.should_stop,
        after_pruning=norms.re_estimated,
    )
    put_back(model.state_dict(), result.best_state)
    after = evaluate(model, final, should_stop=job.should_stop)
    latency = latency_milliseconds(model)
    write_safetensors(result.best_state, job.folder / BEST)
    return {
        "best_epoch": result.best_epoch,
        "figures": figures(after),
        "latency_ms": latency,
    }


def tell_epoch(job: InsideJob, epoch: EpochResult) -> None:
    """Each epoch's state under a name of its own: the next one is written while this is fetched."""
    saved = job.folder / "state"
    file: Path | None = None
    if saved.exists():
        file = saved.rename(job.folder / f"epoch-{epoch.epoch}.safetensors")
    job.tell("epoch", epoch_figures(epoch) | {"file": file.name if file else None})
