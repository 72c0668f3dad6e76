"""Win the accuracy back: prune and retrain, beside baselines of equal size and budget."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from app.domain.prediction import UnitFacts, plan_costs
from app.domain.statistics import wilson
from app.domain.words import SplitName
from app.store import blobs, events, experiments
from app.store.tables import Analysis, Dataset, Epoch, Experiment, Model, Plan, Run
from worker.context import JobContext
from worker.engine.baselines import baseline_masks
from worker.engine.evaluation import Evaluation, evaluate
from worker.engine.formats.checkpoints import write_safetensors
from worker.engine.formats.datasets import Split
from worker.engine.latency import latency_milliseconds
from worker.engine.masks import MaskSet
from worker.engine.retraining import EpochResult, RetrainSettings
from worker.engine.retraining import retrain as retrain_model
from worker.opening import Opened, open_files

PLAN_RUN = "plan"


@dataclass
class Setting:
    """Everything about one experiment that its runs share."""

    context: JobContext
    experiment_id: int
    opened: Opened
    plan: Plan
    model_row: Model
    seed: int
    settings: RetrainSettings
    train: Split
    tune: Split
    final: Split
    total_epochs: int
    started: float
    epochs_before: int
    epochs_done: int


def retrain(context: JobContext) -> None:
    """Payload `{experiment_id}`. Goes on from the last finished epoch after a worker's death."""
    experiment_id = context.payload["experiment_id"]
    with context.store.read() as session:
        experiment = session.get_one(Experiment, experiment_id)
        plan = session.get_one(Plan, experiment.plan_id)
        analysis = session.get_one(Analysis, plan.analysis_id)
        model_row = session.get_one(Model, analysis.model_id)
        dataset_row = session.get_one(Dataset, analysis.dataset_id)
        runs = experiments.runs(session, experiment_id)
    opened = open_files(
        context.blobs.local_path(model_row.sha256),
        context.blobs.local_path(dataset_row.sha256),
        dataset_row.task,
        context.scratch("datasets", dataset_row.sha256),
    )
    wanted = experiment.settings
    settings = RetrainSettings(
        epochs=wanted["epochs"],
        batch_size=wanted["batch_size"],
        learning_rate=wanted["learning_rate"],
        seed=wanted["seed"],
    )
    has_test = bool(opened.dataset.info.splits.get(SplitName.TEST))
    names = [PLAN_RUN, *wanted["baselines"]]
    setting = Setting(
        context=context,
        experiment_id=experiment_id,
        opened=opened,
        plan=plan,
        model_row=model_row,
        seed=wanted["seed"],
        settings=settings,
        train=opened.split(SplitName.TRAIN),
        tune=opened.split(SplitName.TUNE),
        final=opened.split(SplitName.TEST if has_test else SplitName.TUNE),
        total_epochs=settings.epochs * len(names),
        started=time.monotonic(),
        epochs_before=0,
        epochs_done=0,
    )
    store_dense_figures(setting, experiment)
    finished = {run.name for run in runs if run.after is not None}
    for position, name in enumerate(names):
        if name not in finished:
            one_run(setting, name, position)
        setting.epochs_done = settings.epochs * (position + 1)
    context.progress(setting.total_epochs, setting.total_epochs, 0.0)


def masks_of(setting: Setting, name: str) -> MaskSet:
    opened, plan = setting.opened, setting.plan
    if name == PLAN_RUN:
        return MaskSet.from_plan(
            opened.model, opened.units, plan.sparsities, plan.criterion, setting.seed
        )
    return baseline_masks(name, opened.model, opened.units, plan.sparsities, setting.seed)


def one_run(setting: Setting, name: str, position: int) -> None:
    """Prune, evaluate, retrain with the masks held, evaluate the best epoch once, store."""
    context, model = setting.context, setting.opened.model
    dense = {key: value.clone() for key, value in model.state_dict().items()}
    masks = masks_of(setting, name)
    with context.write() as session:
        run_id = experiments.ensure_run(
            session, setting.experiment_id, name, position, masks.achieved()
        ).id
    try:
        before = figures(
            setting,
            masks,
            evaluate(model, setting.final, masks=masks, should_stop=context.should_stop),
        )
        state_file = context.scratch("experiments", str(setting.experiment_id)) / (
            f"{name}.safetensors"
        )
        result = retrain_model(
            model,
            masks,
            setting.train,
            setting.tune,
            setting.settings,
            resume_from=state_file if state_file.exists() else None,
            save_to=state_file,
            on_epoch=lambda epoch: store_epoch(setting, name, run_id, epoch),
            should_stop=context.should_stop,
        )
        load_state(model, result.best_state)
        after = figures(
            setting, masks, evaluate(model, setting.final, should_stop=context.should_stop)
        )
        after["latency_ms"] = latency_milliseconds(model)
        checkpoint = state_file.with_suffix(".best.safetensors")
        write_safetensors(result.best_state, checkpoint)
        sha256, _ = context.blobs.put_file(checkpoint)
        checkpoint.unlink()
    finally:
        load_state(model, dense)
    with context.write() as session:
        blobs.hold(session, context.blobs, sha256)
        run = session.get_one(Run, run_id)
        run.before, run.after = before, after
        run.best_epoch, run.checkpoint_sha256 = result.best_epoch, sha256
        events.publish(
            session,
            context.lease.topic,
            "run",
            {"name": name, "before": before, "after": after, "best_epoch": result.best_epoch},
        )
    state_file.unlink(missing_ok=True)


def load_state(model: Any, state: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for key, value in model.state_dict().items():
            value.copy_(state[key])


def store_dense_figures(setting: Setting, experiment: Experiment) -> None:
    """The unpruned network on the final split: what every run is compared with."""
    if experiment.baseline is not None:
        return
    evaluation = evaluate(
        setting.opened.model, setting.final, should_stop=setting.context.should_stop
    )
    dense = accuracy_figures(evaluation, setting.final.name)
    dense |= {
        "sparsity": 0.0,
        "parameters": setting.model_row.parameters,
        "macs": setting.model_row.macs,
        "bytes": setting.model_row.state_bytes,
        "latency_ms": latency_milliseconds(setting.opened.model),
    }
    with setting.context.write() as session:
        session.get_one(Experiment, setting.experiment_id).baseline = dense
        events.publish(session, setting.context.lease.topic, "baseline", dense)


def accuracy_figures(evaluation: Evaluation, split: str) -> dict[str, Any]:
    interval = wilson(evaluation.correct, evaluation.samples)
    return {
        "split": split,
        "accuracy": evaluation.accuracy,
        "low": interval.low,
        "high": interval.high,
        "loss": evaluation.loss,
        "samples": evaluation.samples,
    }


def figures(setting: Setting, masks: MaskSet, evaluation: Evaluation) -> dict[str, Any]:
    """The row of the before/after table: accuracy on the final split, and what the masks cost."""
    facts = [
        UnitFacts(
            unit["id"], unit["size"], (unit["shape"] or [1])[0], unit["itemsize"], unit["macs"]
        )
        for unit in setting.model_row.units["weight"]
        if unit["prunable"]
    ]
    sparsity, parameters, macs, stored = plan_costs(
        facts,
        masks.achieved(),
        total_parameters=setting.model_row.parameters or 0,
        total_macs=setting.model_row.macs or 0,
        total_bytes=setting.model_row.state_bytes or 0,
    )
    return accuracy_figures(evaluation, setting.final.name) | {
        "sparsity": sparsity,
        "parameters": parameters,
        "macs": macs,
        "bytes": stored,
    }


def store_epoch(setting: Setting, name: str, run_id: int, epoch: EpochResult) -> None:
    context = setting.context
    interval = wilson(round(epoch.tune_accuracy * epoch.tune_samples), epoch.tune_samples)
    row = {
        "step": epoch.step,
        "epoch": epoch.epoch,
        "sparsity": epoch.sparsity,
        "train_loss": epoch.train_loss,
        "tune_accuracy": epoch.tune_accuracy,
        "tune_loss": epoch.tune_loss,
        "low": interval.low,
        "high": interval.high,
        "learning_rate": epoch.learning_rate,
    }
    done = setting.epochs_done + epoch.epoch
    with context.write() as session:
        if session.get(Epoch, (run_id, epoch.step, epoch.epoch)) is not None:
            return  # reported by an attempt that died later; the training state agrees with it
        experiments.put_epoch(session, run_id, row | {"tune_samples": epoch.tune_samples})
        events.publish(session, context.lease.topic, "epoch", {"run": name} | row)
    elapsed = time.monotonic() - setting.started
    fresh = max(1, done - setting.epochs_before)
    context.progress(done, setting.total_epochs, elapsed / fresh * (setting.total_epochs - done))
