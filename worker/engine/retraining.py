"""Retraining a pruned network: removed weights stay zero, the best epoch on `tune` is kept."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.domain.errors import InvalidInput, Stopped, TrainingDiverged
from app.domain.estimates import Known, Share
from app.domain.metrics import Metric, primary
from worker.engine.batches import require_samples
from worker.engine.evaluation import evaluate
from worker.engine.formats.checkpoints import copy_state
from worker.engine.formats.splits import Split, shuffled
from worker.engine.graph import CanonicalModel
from worker.engine.learning_rate import (
    adaptive_peak,
    range_test,
    scheduled_rate,
    seeded,
    weight_change,
)
from worker.engine.masks import MaskSet
from worker.engine.objectives import Evaluation, objective_for
from worker.engine.train_state import TrainState, distinct, put_back

MOMENTUM = 0.9
# Only on weights of two and more axes: shrinking biases and norms does no good, and a weight that
# is zero has nothing to decay.
WEIGHT_DECAY = 1e-4

_RANGE_EPOCH = -1


@dataclass(frozen=True)
class RetrainSettings:
    """`learning_rate` is the peak of the schedule; None: chosen by range test and ALLR."""

    epochs: int
    batch_size: int = 64
    learning_rate: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class EpochResult:
    """One row of the trajectory. Epoch 0 is the pruned network before any training.

    `step` counts pruning steps (0: one-shot). `train_loss` is the objective's loss, the mean over
    the epoch's samples, None for epoch 0; `tune_loss` None when it isn't finite; `tune_accuracy`
    None for regression; `learning_rate` the mean over the epoch's optimiser steps. `tune` is all of
    the evaluation as `Evaluation.as_json` gives it.
    """

    step: int
    epoch: int
    sparsity: float
    train_loss: float | None
    tune_accuracy: float | None
    tune_loss: float | None
    tune_samples: int
    learning_rate: float
    tune: dict[str, Any] = field(default_factory=dict)

    @property
    def tune_metrics(self) -> dict[str, dict[str, float | None]]:
        """`{"value", "low", "high"}` of every metric on `tune`, by name."""
        return self.tune["metrics"]


@dataclass(frozen=True)
class RetrainResult:
    """`best_state` has the user's keys, order and sharing; `learning_rate` is the peak used."""

    best_epoch: int
    best_state: dict[str, Tensor]
    epochs: list[EpochResult]
    learning_rate: float


def retrain(
    model: CanonicalModel,
    masks: MaskSet,
    train: Split,
    tune: Split,
    settings: RetrainSettings,
    *,
    save_to: Path,
    resume_from: Path | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    after_pruning: Callable[[CanonicalModel], object] | None = None,
) -> RetrainResult:
    """Prunes the dense `model` with `masks` and trains it on `train`, judged on `tune`.

    Where the masks bring new weights, training starts from these. `after_pruning` may change the
    network in place before that, by re-estimating its batch norms, say.

    SGD with Nesterov momentum 0.9, weight decay 1e-4 on matrices and kernels, the loss of the
    objective, 10 % warm-up then linear to zero. Masks are applied again after every optimiser step,
    since momentum revives zeros. Pass the dense weights, anew for each run: the model is changed in
    place, and is left with the best epoch's weights. Best is the best primary metric on tune
    (accuracy, mean squared error, perplexity), then the lower loss, then the earlier epoch; epoch 0
    counts.

    The state is saved to `save_to` after every epoch. If `resume_from` is there, training goes on
    from it and ends with bit for bit the same result as without the break (same machine, same
    number of threads); `on_epoch` is then called again for the epochs already done, so each is
    reported at least once.

    Raises Stopped between batches when `should_stop()` turns true (the last epoch's state stays),
    TrainingDiverged for a loss that is not finite, InvalidInput for settings that make no sense and
    for a saved state of another run.
    """
    _check(settings, train, tune)
    run = _Run(model, masks, train, tune, settings, should_stop or (lambda: False))
    report = on_epoch or (lambda _: None)
    # Dropout draws from torch's global generator; leave it as it was found.
    with torch.random.fork_rng(devices=[]):
        if resume_from is not None and resume_from.is_file():
            run.restore(TrainState.load(resume_from))
            for result in run.history:
                report(result)
        else:
            run.begin(after_pruning)
            run.save(save_to)
            report(run.history[0])
        while run.epoch < settings.epochs:
            result = run.advance()
            run.save(save_to)
            report(result)
    return run.finish()


class _Run:
    """One training run between its first batch and its best epoch."""

    def __init__(
        self,
        model: CanonicalModel,
        masks: MaskSet,
        train: Split,
        tune: Split,
        settings: RetrainSettings,
        should_stop: Callable[[], bool],
    ) -> None:
        self.model, self.masks, self.tune, self.settings = model, masks, tune, settings
        self.train = train.cast([spec.dtype for spec in model.inputs])
        self.should_stop = should_stop
        self.objective = objective_for(model, train)
        self.judge = objective_for(model, tune)
        self.metric = primary(self.judge.kind)
        self.batch_size = model.fixed_batch or settings.batch_size
        self.state = model.state_dict()
        self.parameters = {
            name: parameter.requires_grad_(True)
            for name, parameter in model.module.named_parameters()
            if parameter.is_floating_point()
        }
        self.optimizer = self._new_optimizer()
        self.peak = 0.0
        self.epoch = 0
        self.history: list[EpochResult] = []
        self.best_epoch = 0
        self.best: dict[str, Tensor] = {}

    def begin(self, after_pruning: Callable[[CanonicalModel], object] | None = None) -> None:
        """Prunes, evaluates, and finds the learning rate."""
        change, sparsity = weight_change(self.model, self.masks)
        self.masks.prune_(self.model)
        if after_pruning is not None:
            after_pruning(self.model)
        self._record(None, 0.0)
        if self.settings.learning_rate is not None:
            self.peak = self.settings.learning_rate
        elif self.settings.epochs:
            self.peak = adaptive_peak(self._range(), change, sparsity, self.settings.epochs)

    def advance(self) -> EpochResult:
        """Trains one epoch and evaluates it."""
        self.epoch += 1
        steps = self._steps()
        before = (self.epoch - 1) * steps
        total = steps * self.settings.epochs
        torch.manual_seed(seeded(self.settings.seed, self.epoch))
        self.model.train_mode(True)
        summed, samples, rates = 0.0, 0, 0.0
        for number, rows in enumerate(self._batches(self.epoch)):
            rate = scheduled_rate(self.peak, before + number, total)
            loss = self._step(rows, rate)
            if not math.isfinite(loss):
                raise TrainingDiverged(
                    f"The loss became {'NaN' if math.isnan(loss) else 'infinite'} in epoch "
                    f"{self.epoch}, at a learning rate of {rate:.3g}.",
                    f"Give a lower learning rate, for example {self.peak / 10:.1g}.",
                )
            summed += loss * len(rows)
            samples += len(rows)
            rates += rate
        return self._record(summed / samples, rates / steps)

    def finish(self) -> RetrainResult:
        put_back(self.state, self.best)
        self.model.train_mode(False)
        self.optimizer.zero_grad()
        return RetrainResult(
            self.best_epoch, copy_state(self.model.state_dict()), list(self.history), self.peak
        )

    def save(self, path: Path) -> None:
        TrainState(
            weights=distinct(self.state, self.model.tied),
            best=self.best,
            momentum={
                name: buffer
                for name, parameter in self.parameters.items()
                if (buffer := self.optimizer.state[parameter].get("momentum_buffer")) is not None
            },
            progress={
                "identity": self._identity(),
                "epoch": self.epoch,
                "peak": self.peak,
                "best_epoch": self.best_epoch,
                "history": [asdict(result) for result in self.history],
            },
        ).save(path)

    def restore(self, saved: TrainState) -> None:
        if saved.progress["identity"] != self._identity():
            raise InvalidInput(
                "The saved training state belongs to a run with other settings, masks or data.",
                "Start the retraining anew.",
            )
        put_back(self.state, saved.weights)
        for name, buffer in saved.momentum.items():
            self.optimizer.state[self.parameters[name]]["momentum_buffer"] = buffer.clone()
        self.best = dict(saved.best)
        self.epoch = saved.progress["epoch"]
        self.peak = saved.progress["peak"]
        self.best_epoch = saved.progress["best_epoch"]
        self.history = [_epoch(result) for result in saved.progress["history"]]

    def _step(self, rows: np.ndarray, rate: float) -> float:
        """One optimiser step; gives the loss before it. One that is not finite changes nothing."""
        if self.should_stop():
            raise Stopped(
                "The retraining was stopped.", "Start it again to go on after its last epoch."
            )
        inputs, labels = self.train.gather(rows)
        loss = self.objective.loss(self.objective.outputs(self._output(inputs), labels), labels)
        value = loss.item()
        if not math.isfinite(value):
            return value
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.masks.apply_(self.model)
        return value

    def _output(self, inputs: tuple[Tensor, ...]) -> Any:
        try:
            return self.model.module(*inputs)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InvalidInput(
                "The network's batch norm can't learn from batches of a single sample.",
                "Export the network with a free batch dimension."
                if self.model.fixed_batch is not None
                else "Upload more training samples."
                if len(self.train) < 2
                else "Choose a batch size of at least 2.",
            ) from error

    def _range(self) -> float:
        """A range test that leaves no trace."""
        kept = {key: tensor.clone() for key, tensor in self._distinct().items()}
        batches = self._batches_for_ever()
        torch.manual_seed(seeded(self.settings.seed, 0))
        self.model.train_mode(True)
        steepness = self.objective.steepness
        highest = range_test(lambda _, rate: self._step(next(batches), rate), steepness)
        put_back(self.state, kept)
        self.optimizer = self._new_optimizer()
        return highest

    def _record(self, train_loss: float | None, rate: float) -> EpochResult:
        figures = evaluate(
            self.model, self.tune, objective=self.judge, should_stop=self.should_stop
        )
        result = EpochResult(
            step=0,
            epoch=self.epoch,
            sparsity=self.masks.sparsity(),
            train_loss=train_loss,
            tune_accuracy=figures.accuracy,
            tune_loss=figures.loss,
            tune_samples=figures.samples,
            learning_rate=rate,
            tune=figures.as_json(),
        )
        self.history.append(result)
        best = max(self.history, key=lambda result: _merit(result, self.metric))
        if best is result:
            self.best_epoch = self.epoch
            self.best = {key: tensor.clone() for key, tensor in self._distinct().items()}
        return result

    def _distinct(self) -> dict[str, Tensor]:
        return distinct(self.state, self.model.tied)

    def _new_optimizer(self) -> torch.optim.SGD:
        matrices = [p for p in self.parameters.values() if p.ndim >= 2]
        others = [p for p in self.parameters.values() if p.ndim < 2]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": WEIGHT_DECAY},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.SGD(
            [group for group in groups if group["params"]], 0.0, MOMENTUM, nesterov=True
        )

    def _steps(self) -> int:
        steps = math.ceil(len(self.train) / self.batch_size)
        return steps - 1 if self._drops_last() else steps

    def _drops_last(self) -> bool:
        """Batch norm can't learn from one sample; it gets its turn in another epoch's order."""
        size = len(self.train)
        return (
            self.model.fixed_batch is None
            and size % self.batch_size == 1
            and size > 1 < self.batch_size
        )

    def _batches(self, epoch: int) -> Iterator[np.ndarray]:
        """Positions of each batch of an epoch: every sample once, in the epoch's own order.

        With a fixed batch size the last batch is filled up from the start of the same order.
        """
        order = shuffled(len(self.train), self.settings.seed, epoch)
        steps = self._steps()
        if self.model.fixed_batch is not None:
            order = np.resize(order, steps * self.batch_size)
        for step in range(steps):
            yield order[step * self.batch_size : (step + 1) * self.batch_size]

    def _batches_for_ever(self) -> Iterator[np.ndarray]:
        epoch = _RANGE_EPOCH
        while True:
            yield from self._batches(epoch)
            epoch -= 1

    def _identity(self) -> str:
        """What must be the same for a saved state to be continued."""
        digest = hashlib.sha256(repr(self.settings).encode())
        for key, mask in self.masks.as_tensors().items():
            digest.update(key.encode())
            digest.update(np.packbits(mask.numpy()).data)
        for key, weight in self.masks.new_weights().items():
            digest.update(key.encode())
            digest.update(weight.contiguous().view(torch.uint8).numpy().data)
        digest.update(f"{self.train.fingerprint}{self.tune.fingerprint}".encode())
        return digest.hexdigest()


def _merit(result: EpochResult, metric: Metric) -> tuple[float, float, int]:
    loss = math.inf if result.tune_loss is None else result.tune_loss
    value = result.tune_metrics[metric.name]["value"]
    worth = -math.inf if value is None else value if metric.higher_is_better else -value
    return worth, -loss, -result.epoch


def _epoch(saved: dict[str, Any]) -> EpochResult:
    """An epoch as it was saved; states of before there were other metrics have accuracy alone."""
    if "tune" not in saved:
        samples, loss = saved["tune_samples"], saved["tune_loss"]
        right = Share(round(saved["tune_accuracy"] * samples), samples)
        estimates = {"accuracy": right, "loss": Known(loss)}
        saved["tune"] = Evaluation(samples, right.hits, loss, estimates=estimates).as_json()
    return EpochResult(**saved)


def _check(settings: RetrainSettings, train: Split, tune: Split) -> None:
    faults = {}
    if settings.epochs < 0:
        faults["epochs"] = "must be 0 or more"
    if settings.batch_size < 1:
        faults["batch_size"] = "must be 1 or more"
    rate = settings.learning_rate
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        faults["learning_rate"] = "must be a positive number"
    if faults:
        listed = "; ".join(f"{name} {fault}" for name, fault in faults.items())
        raise InvalidInput(
            f"The retraining settings are wrong: {listed}.", "Correct them.", fields=faults
        )
    require_samples(train)
    require_samples(tune)
