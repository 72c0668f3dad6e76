"""Batch-norm statistics of many cells in one pass over the calibration batches.

Each cell's statistics are those of the network with the cell's weight pruned. What doesn't depend
on that weight is the same in all of them: as in `passes.py`, the part before is run once a batch,
and each cell runs its suffix alone, with batch norms in training mode and sums of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from worker.engine.batches import evaluating
from worker.engine.pulse import Pulse
from worker.engine.recalibration import (
    Calibration,
    LayerStatistics,
    Statistics,
    batch_norms,
    said_simply,
)
from worker.engine.steps import Registers
from worker.engine.suffix import Flow, Suffix

if TYPE_CHECKING:
    from worker.engine.formats.splits import Split
    from worker.engine.graph import CanonicalModel


@dataclass(frozen=True)
class PrunedCell:
    """A weight, what sets it to its pruned values in place, and what puts the old bits back."""

    weight: Tensor
    prune: Callable[[], None]
    restore: Callable[[], None]


class _Averages:
    """Mean and variance [channels] of one call of a batch norm, averaged over its batches."""

    def __init__(self, layer: _BatchNorm) -> None:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        self.mean = torch.zeros_like(layer.running_mean)
        self.variance = torch.ones_like(layer.running_var)


@dataclass
class _Scene:
    """Whose statistics the calls of the moment are (None: nobody's), and of which batch, from 1."""

    into: dict[_Recorder, _Averages] | None = None
    batch: int = 1


class _Recorder(nn.Module):
    """One call of a batch norm as training mode makes it, with the kernel that it has there."""

    def __init__(self, layer: _BatchNorm, scene: _Scene) -> None:
        super().__init__()
        # Registered, so that it is known that this step depends on them.
        self.weight, self.bias = layer.weight, layer.bias
        self.layer = (layer,)
        self._check, self._epsilon = layer._check_input_dim, layer.eps
        self._scene = scene

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        mean = variance = None
        if self._scene.into is not None:
            if self not in self._scene.into:
                self._scene.into[self] = _Averages(self.layer[0])
            averages = self._scene.into[self]
            mean, variance = averages.mean, averages.variance
        # The running average of momentum=None: the batch's part of all batches so far.
        share = 1.0 / self._scene.batch
        return functional.batch_norm(
            x, mean, variance, self.weight, self.bias, True, share, self._epsilon
        )


@dataclass
class _Job:
    cell: PrunedCell
    suffix: Suffix
    averages: dict[_Recorder, _Averages] = field(default_factory=dict)


class CalibrationPass:
    """Finds the statistics of cells of one network, group by group.

    Build it on the dense network, in whatever mode; weights are read where they lie. What is alive
    at once is one batch's activations and the statistics of each cell. Raises InvalidInput for a
    split that is empty or too small.
    """

    def __init__(self, model: CanonicalModel, train: Split, seed: int) -> None:
        self._model = model
        self._batches = Calibration(model, train, seed)
        self._samples = len(train)
        self._scene = _Scene()
        module, self._calls = _recording(model, self._scene)
        first = next(iter(self._batches))
        sample = first if model.fixed_batch is not None else [tensor[:2] for tensor in first]
        with evaluating(model), torch.inference_mode(), said_simply(self._samples):
            self._flow = Flow(module, sample)

    def run(
        self, cells: Sequence[PrunedCell], should_stop: Callable[[], bool] | None = None
    ) -> list[Statistics]:
        """For each cell the statistics, not in force, of the batch norms that its weight reaches.

        All others have those of the dense network. Equal to pruning the weight and `recalibrate`,
        bit for bit; where one batch norm is called several times, to rounding. Weights have their
        old bits back whatever happens. Raises Stopped.
        """
        pulse = Pulse(should_stop)
        pulse.check()
        jobs = [_Job(cell, self._flow.suffix(cell.weight)) for cell in cells]
        dense: dict[_Recorder, _Averages] = {}
        try:
            with evaluating(self._model), torch.inference_mode(), said_simply(self._samples):
                busy = jobs
                for number, inputs in enumerate(self._batches, start=1):
                    self._scene.batch = number
                    self._run_batch(inputs, busy, dense, pulse)
                    # A weight behind all batch norms moves none of them.
                    busy = [job for job in busy if job.averages]
                    if not busy:
                        break
        finally:
            self._scene.into = None
        return [Statistics(self._merged(job, dense)) for job in jobs]

    def _run_batch(
        self,
        inputs: Sequence[Tensor],
        jobs: Sequence[_Job],
        dense: dict[_Recorder, _Averages],
        pulse: Pulse,
    ) -> None:
        flow = self._flow
        waiting: dict[int, list[_Job]] = {}
        for job in jobs:
            waiting.setdefault(job.suffix.ready, []).append(job)
        order = list(flow.prefix({at for job in jobs for at in job.suffix.boundary}))
        drop = self._last_uses(order, jobs)
        registers, scratch = flow.registers(), flow.registers()
        for at, tensor in zip(flow.inputs, inputs, strict=True):
            registers[at] = tensor
        for at in (-1, *order):
            if at >= 0:
                self._scene.into = dense
                registers[at] = flow.step(at)(registers)
                pulse.beat()
            for job in waiting.get(at, ()):
                self._run_job(job, registers, scratch, pulse)
            for register in drop.get(at, ()):
                registers[register] = None

    def _last_uses(self, order: Sequence[int], jobs: Sequence[_Job]) -> dict[int, list[int]]:
        """After which node which registers of the dense run are needed by nobody."""
        last = dict.fromkeys(self._flow.inputs, -1)
        for at in order:
            last.setdefault(at, at)
            for source in self._flow.reads(at):
                last[source] = at
        for job in jobs:
            for source in job.suffix.boundary:
                last[source] = max(last[source], job.suffix.ready)
        drop: dict[int, list[int]] = {}
        for register, at in last.items():
            drop.setdefault(at, []).append(register)
        return drop

    def _run_job(self, job: _Job, registers: Registers, scratch: Registers, pulse: Pulse) -> None:
        cell, flow = job.cell, self._flow
        self._scene.into = job.averages
        for source in job.suffix.boundary:
            scratch[source] = registers[source]
        try:
            cell.prune()
            flow.refresh(cell.weight)
            for step, out, done in job.suffix.instructions:
                scratch[out] = step(scratch)
                for register in done:
                    scratch[register] = None
                pulse.beat()
        finally:
            cell.restore()
            flow.refresh(cell.weight)
            scratch[flow.output] = None
            for source in job.suffix.boundary:
                scratch[source] = None

    def _merged(self, job: _Job, dense: dict[_Recorder, _Averages]) -> list[LayerStatistics]:
        """One mean and variance for each batch norm, over all of its calls."""
        found = []
        for layer, calls in self._calls:
            if not any(call in job.averages for call in calls):
                continue
            parts = [job.averages.get(call) or dense[call] for call in calls]
            mean, variance = parts[0].mean, parts[0].variance
            if len(parts) > 1:
                mean = torch.stack([part.mean for part in parts]).mean(0)
                variance = torch.stack([part.variance for part in parts]).mean(0)
            found.append(LayerStatistics(layer, mean, variance, len(self._batches) * len(calls)))
        return found


def calibrated(
    model: CanonicalModel,
    train: Split,
    cells: Sequence[PrunedCell],
    seed: int,
    should_stop: Callable[[], bool] | None = None,
) -> list[Statistics]:
    """As `CalibrationPass.run`, for a single group of cells."""
    return CalibrationPass(model, train, seed).run(cells, should_stop)


def _recording(
    model: CanonicalModel, scene: _Scene
) -> tuple[fx.GraphModule, list[tuple[_BatchNorm, list[_Recorder]]]]:
    """The graph with a recorder for every call of a batch norm, and the recorders of each.

    Everything else is shared with the network itself.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in model.module.graph.nodes:
        copies[node] = graph.node_copy(node, lambda n: copies[n])
    module = fx.GraphModule(model.module, graph)
    layers = list(batch_norms(model).values())
    calls: dict[int, list[_Recorder]] = {id(layer): [] for layer in layers}
    for number, node in enumerate(graph.nodes):
        if node.op != "call_module":
            continue
        layer = module.get_submodule(str(node.target))
        if isinstance(layer, _BatchNorm) and id(layer) in calls:
            recorder = _Recorder(layer, scene)
            recorder.train(False)
            calls[id(layer)].append(recorder)
            node.target = f"{_RECORDER}{number}"
            module.add_submodule(node.target, recorder)
    module.train(False)
    return module, [(layer, calls[id(layer)]) for layer in layers]


_RECORDER = "recorder_of_node_"
