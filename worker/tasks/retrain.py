"""Win the accuracy back: prune and retrain, beside baselines of equal size and budget."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.prediction import UnitFacts, plan_costs
from app.domain.words import SplitName
from app.store import blobs, events, experiments
from app.store.tables import Analysis, Dataset, Epoch, Experiment, Model, Plan, Run
from worker.context import JobContext
from worker.sandbox.walls import take_file
from worker.tasks import uploads
from worker.tasks.pruning import PLAN_RUN, Pruning
from worker.tasks.reports import (
    DenseSaid,
    EpochSaid,
    Figures,
    PrunedSaid,
    Retrained,
    require,
    unexpected,
)

BEST = "best.safetensors"
EXPERIMENTS = "experiments"


@dataclass
class Setting:
    """Everything about one experiment that its runs share. `sizes`: samples of each split."""

    context: JobContext
    experiment_id: int
    plan: Plan
    analysis: Analysis
    model: Model
    files: Mapping[str, Path]
    reading: Mapping[str, Any]
    settings: Mapping[str, Any]
    splits: Mapping[str, str]
    sizes: Mapping[str, int]
    total_epochs: int
    started: float
    dense_wanted: bool
    kind: str | None
    epochs_done: int = 0
    epochs_here: int = 0


def retrain(context: JobContext) -> None:
    """Payload `{experiment_id}`. Goes on from the last finished epoch after any process's death."""
    experiment_id = context.payload["experiment_id"]
    with context.store.read() as session:
        experiment = session.get_one(Experiment, experiment_id)
        plan = session.get_one(Plan, experiment.plan_id)
        analysis = session.get_one(Analysis, plan.analysis_id)
        model = session.get_one(Model, analysis.model_id)
        dataset = session.get_one(Dataset, analysis.dataset_id)
        runs = experiments.runs(session, experiment_id)
    uploads.require_network(model)
    wanted = experiment.settings
    has_test = bool((dataset.splits or {}).get(SplitName.TEST))
    splits = {
        "train": SplitName.TRAIN.value,
        "tune": SplitName.TUNE.value,
        "final": (SplitName.TEST if has_test else SplitName.TUNE).value,
    }
    names = [PLAN_RUN, *wanted["baselines"]]
    setting = Setting(
        context=context,
        experiment_id=experiment_id,
        plan=plan,
        analysis=analysis,
        model=model,
        files=uploads.files_of(context, model, dataset),
        reading=uploads.reading(dataset),
        settings={name: wanted[name] for name in ("epochs", "batch_size", "learning_rate", "seed")},
        splits=splits,
        sizes={part: uploads.split_size(dataset, name) for part, name in splits.items()},
        total_epochs=wanted["epochs"] * len(names),
        started=time.monotonic(),
        dense_wanted=experiment.baseline is None,
        kind=(experiment.baseline or {}).get("kind"),
    )
    finished = {run.name for run in runs if run.after is not None}
    for position, name in enumerate(names):
        if name not in finished:
            OneRun(setting, name, position).run()
        setting.epochs_done = wanted["epochs"] * (position + 1)
    context.progress(setting.total_epochs, setting.total_epochs, 0.0)


class OneRun:
    """Prune, evaluate, retrain with the masks held, evaluate the best epoch once, store."""

    def __init__(self, setting: Setting, name: str, position: int) -> None:
        self.setting = setting
        self.context = setting.context
        self.name = name
        self.position = position
        sizes = uploads.unit_sizes(setting.model)
        self.pruning = Pruning.of_run(
            name, sizes, setting.plan, setting.analysis, setting.settings["seed"]
        )
        folder = self.context.scratch(EXPERIMENTS, str(setting.experiment_id))
        self.state_file = folder / f"{name}.safetensors"
        self.run_id: int | None = None
        self.removed: Mapping[str, int] = {}
        self.before: dict[str, Any] | None = None
        self.epoch = -1

    def run(self) -> None:
        setting = self.setting
        arguments = {
            **setting.reading,
            "pruning": self.pruning.argument,
            "settings": dict(setting.settings),
            "splits": dict(setting.splits),
            "dense": setting.dense_wanted,
        }
        files = dict(setting.files)
        if self.state_file.exists():
            files["state"] = self.state_file
        with self.context.inside("retrain", arguments, files, self.hear) as result:
            said = Retrained.of(result.value)
            said.figures.check(setting.sizes["final"], setting.kind)
            require(not setting.dense_wanted, "an end without the dense network's figures")
            require(self.epoch == setting.settings["epochs"], "an end before the last epoch")
            require(said.best_epoch <= self.epoch, "a best epoch that never was")
            with uploads.blob_of(self.context, result, BEST) as sha256:
                self._store_end(said, sha256)
        self.state_file.unlink(missing_ok=True)

    def hear(self, kind: str, body: Mapping[str, Any], folder: Path) -> None:
        if kind == "dense":
            self._dense(DenseSaid.of(body))
        elif kind == "pruned":
            self._pruned(PrunedSaid.of(body))
        elif kind == "epoch":
            self._epoch(EpochSaid.of(body), folder)
        else:
            raise unexpected(kind)

    def _dense(self, said: DenseSaid) -> None:
        """The unpruned network on the final split: what every run is compared with."""
        setting = self.setting
        require(setting.dense_wanted, "figures of the dense network that nobody asked for")
        said.figures.check(setting.sizes["final"], setting.kind)
        setting.dense_wanted, setting.kind = False, said.figures.kind.value
        dense = {"kind": said.figures.kind.value} | self._figures_json(said.figures)
        dense |= {
            "sparsity": 0.0,
            "parameters": setting.model.parameters,
            "macs": setting.model.macs,
            "bytes": setting.model.state_bytes,
            "latency_ms": said.latency_ms,
        }
        with self.context.write() as session:
            session.get_one(Experiment, setting.experiment_id).baseline = dense
            events.publish(session, self.context.lease.topic, "baseline", dense)

    def _pruned(self, said: PrunedSaid) -> None:
        setting = self.setting
        require(not setting.dense_wanted, "a run before the dense network's figures")
        require(self.run_id is None, "a second beginning")
        said.figures.check(setting.sizes["final"], setting.kind)
        self.pruning.check_removed(said.removed)
        self.removed = said.removed
        self.before = self._row(said.figures)
        achieved = self.pruning.achieved(said.removed)
        with self.context.write() as session:
            run = experiments.ensure_run(
                session, setting.experiment_id, self.name, self.position, achieved
            )
            self.run_id = run.id

    def _epoch(self, said: EpochSaid, folder: Path) -> None:
        setting = self.setting
        require(self.run_id is not None, "an epoch before the beginning")
        require(said.epoch == self.epoch + 1, "epochs out of order")
        require(said.epoch <= setting.settings["epochs"], "more epochs than asked for")
        require((said.epoch > 0) == (said.train_loss is not None), "a loss of no training")
        said.tune.check(setting.sizes["tune"], setting.kind)
        self.epoch = said.epoch
        if said.file is not None:
            # Before the row: an epoch that somebody has seen is never trained again.
            limit = uploads.disk_bytes(self.state_file.parent)
            uploads.settle(take_file(folder, said.file, self.state_file, limit))
        self._store_epoch(said)

    def _store_epoch(self, said: EpochSaid) -> None:
        setting, context, run_id = self.setting, self.context, self.run_id
        assert run_id is not None
        row = {
            "step": said.step,
            "epoch": said.epoch,
            "sparsity": self.pruning.sparsity(self.removed),
            "train_loss": said.train_loss,
            "tune_accuracy": said.tune.accuracy,
            "tune_loss": said.tune.loss,
            "low": said.tune.low,
            "high": said.tune.high,
            "learning_rate": said.learning_rate,
            "tune_metrics": said.tune.metrics_json(),
        }
        done = setting.epochs_done + said.epoch
        with context.write() as session:
            if session.get(Epoch, (run_id, said.step, said.epoch)) is not None:
                return  # reported by an attempt that died later; the training state agrees with it
            experiments.put_epoch(session, run_id, row | {"tune_samples": said.tune.samples})
            events.publish(session, context.lease.topic, "epoch", {"run": self.name} | row)
        setting.epochs_here += 1
        pace = (time.monotonic() - setting.started) / setting.epochs_here
        context.progress(done, setting.total_epochs, pace * (setting.total_epochs - done))

    def _store_end(self, said: Retrained, sha256: str) -> None:
        context = self.context
        after = self._row(said.figures) | {"latency_ms": said.latency_ms}
        with context.write() as session:
            blobs.hold(session, context.blobs, sha256)
            run = session.get_one(Run, self.run_id)
            run.before, run.after = self.before, after
            run.best_epoch, run.checkpoint_sha256 = said.best_epoch, sha256
            data = {
                "name": self.name,
                "before": self.before,
                "after": after,
                "best_epoch": said.best_epoch,
            }
            events.publish(session, context.lease.topic, "run", data)

    def _figures_json(self, figures: Figures) -> dict[str, Any]:
        columns = figures.columns()
        del columns["correct"]
        return {"split": self.setting.splits["final"]} | columns

    def _row(self, figures: Figures) -> dict[str, Any]:
        """A row of the before/after table: figures on the final split, and what the masks cost."""
        model = self.setting.model
        facts = [
            UnitFacts(
                unit["id"], unit["size"], (unit["shape"] or [1])[0], unit["itemsize"], unit["macs"]
            )
            for unit in (model.units or {})["weight"]
            if unit["prunable"]
        ]
        sparsity, parameters, macs, stored = plan_costs(
            facts,
            self.pruning.achieved(self.removed),
            total_parameters=model.parameters or 0,
            total_macs=model.macs or 0,
            total_bytes=model.state_bytes or 0,
        )
        return self._figures_json(figures) | {
            "sparsity": sparsity,
            "parameters": parameters,
            "macs": macs,
            "bytes": stored,
        }
