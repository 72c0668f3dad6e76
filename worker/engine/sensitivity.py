"""Exact sensitivity curves: each weight pruned alone, at each level, on every sample of a split.

Batches outside, units inside: a batch is loaded and its dense activations computed once for many
cells, and a cell runs only the nodes that depend on its weight. Figures equal those of the naive
loop (set the weights, run the whole network on the same batches) bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from app.domain.errors import InvalidInput
from app.domain.levels import LEVEL_SCALE, coarse_to_fine, removed_count, to_level, to_sparsity
from worker.engine.allocator import keep_freed_memory
from worker.engine.batches import (
    batch_bounds,
    default_batch_size,
    evaluating,
    load_batch,
    require_samples,
)
from worker.engine.criteria import Refusal, Removal, get_criterion, removals
from worker.engine.evaluation import paired_with_itself
from worker.engine.flow_options import PLAIN, FlowOptions
from worker.engine.masks import require_prunable
from worker.engine.near_ties import NearTies
from worker.engine.objectives import Evaluation, Judged, Objective, Predictions, objective_for
from worker.engine.passes import Job, Pass, Whole, in_chunks, pass_length
from worker.engine.pulse import Pulse
from worker.engine.recalibration import Statistics, recalibrate
from worker.engine.suffix import Flow, Suffix
from worker.engine.weights import find_weight

if TYPE_CHECKING:
    from worker.engine.formats.datasets import Split
    from worker.engine.graph import CanonicalModel
    from worker.engine.units import Unit


@dataclass(frozen=True)
class Cell:
    """One unit at one level (millionths of its entries removed) by one criterion."""

    unit: str
    criterion: str
    level: int


@dataclass(frozen=True)
class CellResult:
    """A measured cell: `removed` of `size` entries were zero."""

    cell: Cell
    removed: int
    size: int
    evaluation: Evaluation

    @property
    def achieved(self) -> float:
        """The fraction really removed, after rounding to whole entries."""
        return self.removed / self.size if self.size else 0.0


class SensitivityEngine:
    """Measures cells of one model on one split.

    The batch size follows from the model's shapes unless given, so that the same cell has the same
    figures whenever and in whatever company it is measured. The model's weights are changed while
    a cell runs and are bit for bit the old ones whenever a method returns or raises.
    `threads` sets torch's threads for the time of a call (the process-wide setting). `train` is
    what criteria that need data, and batch norms that are re-estimated (`recalibrated`), see.
    `options` say how the network may be computed; the default gives the plain network's own bits.
    """

    def __init__(
        self,
        model: CanonicalModel,
        split: Split,
        units: Sequence[Unit],
        *,
        criterion: str = "magnitude",
        seed: int = 0,
        batch_size: int | None = None,
        threads: int | None = None,
        train: Split | None = None,
        recalibrated: bool = False,
        options: FlowOptions = PLAIN,
    ) -> None:
        get_criterion(criterion)
        self._model = model
        self._split = split
        self._units = list(units)
        self._by_id = {unit.id: unit for unit in units}
        self._samples = require_samples(split)
        self._criterion = criterion
        self._seed = seed
        self._threads = threads
        self.batch_size = model.fixed_batch or batch_size or default_batch_size(model, split)
        self._bounds = batch_bounds(self._samples, self.batch_size)
        self._train = train
        self._recalibrated = recalibrated
        self._options = options
        self._statistics: Statistics | None = None
        self._removals: dict[tuple[str, str], Removal | Refusal] = {}
        self._suffixes: dict[str, Suffix] = {}
        self._costs: dict[str, float] = {}
        self._flow: Flow | None = None
        self._ties: NearTies | None = None
        self._objective: Objective | None = None
        self._dense: Predictions | None = None
        self._seconds: list[float] = []
        self._overhead = 0.0
        self._pulse: Pulse | None = None

    @property
    def remaining_seconds(self) -> float | None:
        """Estimated time left of the present `run`, None when unknown."""
        return self._pulse.remaining_seconds if self._pulse else None

    def cells(self, levels: Sequence[int]) -> list[Cell]:
        """Every prunable unit at these levels, by the engine's criterion."""
        return [
            Cell(unit.id, self._criterion, level)
            for unit in self._units
            if unit.prunable
            for level in levels
        ]

    @property
    def objective(self) -> Objective:
        """What the network is judged by, found out once. Raises InputMismatch."""
        if self._objective is None:
            with self._running():
                self._objective = objective_for(self._model, self._split)
        return self._objective

    def baseline(self, should_stop: Callable[[], bool] | None = None) -> Evaluation:
        """The dense network's figures (no flips). Measured once, then remembered.

        Raises Stopped when `should_stop()` turns true, InputMismatch when outputs and labels don't
        belong together.
        """
        return self.predictions(should_stop).evaluation

    def predictions(self, should_stop: Callable[[], bool] | None = None) -> Predictions:
        """The dense network's answers and figures, as `baseline`."""
        if self._dense is None:
            with self._running():
                self._dense = self._measure_dense(Pulse(should_stop))
        return self._dense

    def run(
        self,
        cells: Sequence[Cell],
        on_result: Callable[[CellResult], None],
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        """Measure cells, coarse levels of all units first.

        `on_result` gets every cell once, at the end of the pass over the data in which it was
        measured; `on_progress` the done fraction (0 to 1) of this call's work, several times a
        second. Give it the missing cells only to go on where an earlier call stopped.

        Raises Stopped within a few hundred milliseconds of `should_stop()` turning true (cells of
        the unfinished pass are not reported), InvalidInput for a cell that doesn't fit the units.
        """
        pending = self._ordered(cells)
        dense = self.predictions(should_stop).evaluation
        waiting: list[Cell] = []
        for cell in pending:
            if self._removed(cell) == 0:
                on_result(self._result(cell, 0, dense))
            else:
                waiting.append(cell)
        costs = [self._cost(cell.unit) for cell in waiting]
        pulse = self._pulse = Pulse(should_stop, on_progress, sum(costs))
        pulse.check()
        prefix = sum(self._seconds)
        position, pace, at = 0, 1.0, 0
        while at < len(waiting):
            length = pass_length(
                [c * pace for c in costs[at:]], prefix * pace, position, self.objective.row_bytes
            )
            chosen = waiting[at : at + length]
            started = time.perf_counter()
            with self._running():
                results = self._run_pass(chosen, pulse)
            expected = sum(costs[at : at + length]) + prefix
            if expected > 0:
                pace = (time.perf_counter() - started) / expected
            for result in results:
                on_result(result)
            pulse.tell()
            at += length
            position += 1
        pulse.tell()

    def _ordered(self, cells: Sequence[Cell]) -> list[Cell]:
        """Distinct cells, checked, coarse levels of all units first, units in graph order."""
        distinct = list(dict.fromkeys(cells))
        require_prunable(self._units, dict.fromkeys(cell.unit for cell in distinct))
        for cell in distinct:
            get_criterion(cell.criterion)
            to_level(cell.level / LEVEL_SCALE)
        turn = {level: at for at, level in enumerate(coarse_to_fine([c.level for c in distinct]))}
        place = {unit.id: at for at, unit in enumerate(self._units)}
        return sorted(distinct, key=lambda c: (turn[c.level], place[c.unit], c.criterion))

    def prepare(
        self, criteria: Sequence[str], should_stop: Callable[[], bool] | None = None
    ) -> dict[tuple[str, str], str]:
        """Rank all prunable units by these criteria, in one pass over `train` for all of them.

        Returns why there is no order, by `(unit, criterion)`, where there is none. Done by itself
        when a cell is first measured, one criterion at a time. Raises Stopped.
        """
        units = [unit for unit in self._units if unit.prunable]
        missing = [
            name
            for name in dict.fromkeys(criteria)
            if any((unit.id, name) not in self._removals for unit in units)
        ]
        if missing:
            self._removals |= removals(
                self._model,
                units,
                missing,
                seed=self._seed,
                train=self._train,
                should_stop=should_stop,
            )
        return {
            key: found.reason
            for key, found in self._removals.items()
            if isinstance(found, Refusal) and key[1] in criteria
        }

    def _run_pass(self, cells: Sequence[Cell], pulse: Pulse) -> list[CellResult]:
        jobs = self._jobs(cells)
        dense = self.predictions().classes
        one_pass = Pass(self._compiled(), list(jobs.values()), self._near_ties())
        for start, stop in self._bounds:
            inputs, labels = load_batch(self._model, self._split, start, stop)
            share = (stop - start) / self._samples
            one_pass.run_batch(inputs, labels, dense[start:stop], pulse, share)
        return [
            self._result(cell, count, job.tally.evaluation(job.counts.index(count)))
            for cell in cells
            for count, job in [(self._removed(cell), jobs[cell.unit, cell.criterion])]
        ]

    def _jobs(self, cells: Sequence[Cell]) -> dict[tuple[str, str], Job]:
        """The jobs of a pass by unit and criterion; cells that remove as much share a row."""
        wanted: dict[tuple[str, str], set[int]] = {}
        for cell in cells:
            wanted.setdefault((cell.unit, cell.criterion), set()).add(self._removed(cell))
        per_batch = [seconds / len(self._bounds) for seconds in self._seconds]
        return {
            key: Job(
                weight=self._weight(key[0]),
                removal=self._removal(*key),
                suffix=self._suffix(key[0]),
                chunks=in_chunks(self._suffix(key[0]), per_batch),
                counts=tuple(sorted(counts)),
                cost=self._cost(key[0]),
                objective=self.objective,
            )
            for key, counts in wanted.items()
        }

    def _measure_dense(self, pulse: Pulse) -> Predictions:
        """The dense run, which also measures what every node costs."""
        flow = self._compiled()
        order = list(flow.prefix([flow.output]))
        last = {source: at for at in order for source in flow.reads(at)}
        drop: dict[int, list[int]] = {}
        for source, at in last.items():
            drop.setdefault(at, []).append(source)
        seconds = [0.0] * flow.count
        overhead = 0.0
        objective = self.objective
        classes = objective.answers(self._samples)
        tally = objective.tally(1)
        near_ties = self._near_ties()
        for start, stop in self._bounds:
            inputs, labels = load_batch(self._model, self._split, start, stop)
            registers = flow.registers()
            for at, tensor in zip(flow.inputs, inputs, strict=True):
                registers[at] = tensor
            batch = inputs if near_ties is not None else ()
            del inputs
            for at in order:
                began = time.perf_counter()
                registers[at] = flow.step(at)(registers)
                for source in drop.get(at, ()):
                    registers[source] = None
                seconds[at] += time.perf_counter() - began
                pulse.beat()
            began = time.perf_counter()
            outputs = objective.outputs(registers[flow.output], labels)
            if near_ties is not None:
                outputs = near_ties.settled(outputs, batch, labels)
            judged = tally.judge(outputs.unsqueeze(0), labels, None)
            classes[start:stop] = judged.answers[0]
            overhead += time.perf_counter() - began
            self._see_dense(start, outputs, labels, judged)
            if start == 0 and stop < self._samples:
                # The first batch pays for kernels being set up; the others say what is usual.
                seconds, overhead = [0.0] * flow.count, 0.0
        measured = self._samples - (self.batch_size if len(self._bounds) > 1 else 0)
        self._seconds = [spent * self._samples / measured for spent in seconds]
        self._overhead = overhead * self._samples / measured
        return Predictions(classes, paired_with_itself(tally.evaluation(0)))

    def _compiled(self) -> Flow:
        if self._flow is None:
            inputs, _ = load_batch(self._model, self._split, 0, min(2, self._samples))
            self._flow = Flow(self._model.module, inputs, self._options)
        return self._flow

    def _near_ties(self) -> NearTies | None:
        """What settles answers that a fast flow's rounding could turn; None for a plain one."""
        fast = self._compiled() if self._options.fuse else None
        exact = fast is not None and fast.reason is None and self._options.precision == "float32"
        if not exact or not NearTies.matter(self.objective):
            return None
        if self._ties is None:
            inputs, _ = load_batch(self._model, self._split, 0, min(2, self._samples))
            self._ties = NearTies(Whole(Flow(self._model.module, inputs)), self.objective)
        return self._ties

    def _suffix(self, unit: str) -> Suffix:
        if unit not in self._suffixes:
            self._suffixes[unit] = self._compiled().suffix(self._weight(unit))
        return self._suffixes[unit]

    def _removal(self, unit: str, criterion: str) -> Removal:
        if (unit, criterion) not in self._removals:
            self.prepare([criterion])
        found = self._removals[unit, criterion]
        if isinstance(found, Refusal):
            raise InvalidInput(f"{unit} can't be ranked by {criterion}. {found.reason}")
        return found

    def _see_dense(self, start: int, outputs: Tensor, labels: Tensor, judged: Judged) -> None:
        """Is shown each batch of the dense run."""

    def _weight(self, unit: str) -> Tensor:
        return find_weight(self._model, self._by_id[unit].members[0])

    def _removed(self, cell: Cell) -> int:
        return removed_count(to_sparsity(cell.level), self._by_id[cell.unit].size)

    def _cost(self, unit: str) -> float:
        """Estimated seconds of one cell of this unit over the whole split."""
        if unit not in self._costs:
            nodes = self._suffix(unit).nodes
            self._costs[unit] = sum(self._seconds[at] for at in nodes) + self._overhead
        return self._costs[unit]

    def _result(self, cell: Cell, removed: int, evaluation: Evaluation) -> CellResult:
        return CellResult(cell, removed, self._by_id[cell.unit].size, evaluation)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Evaluation mode, no autograd, and the asked-for threads for the time of a block.

        Where batch norms are re-estimated, the dense network has its own new statistics too.
        """
        keep_freed_memory()
        threads = torch.get_num_threads()
        with evaluating(self._model), torch.inference_mode():
            try:
                if self._threads is not None:
                    torch.set_num_threads(self._threads)
                with self._own_statistics():
                    yield
            finally:
                torch.set_num_threads(threads)

    @contextmanager
    def _own_statistics(self) -> Iterator[None]:
        if not self._recalibrated or (self._statistics and self._statistics.applied):
            yield
            return
        if self._statistics is None:
            if self._train is None:
                raise InvalidInput(
                    "Batch norms can't be re-estimated: the data set has no train split.",
                    "Leave recalibrate_batch_norm out, or upload training samples too.",
                )
            self._statistics = recalibrate(self._model, self._train, seed=self._seed)
            # What comes back is in force already; go through the same door as every later time.
            self._statistics.restore()
        self._statistics.apply()
        try:
            self._refresh_statistics(self._statistics)
            yield
        finally:
            self._statistics.restore()
            self._refresh_statistics(self._statistics)

    def _refresh_statistics(self, statistics: Statistics) -> None:
        if self._flow is not None:
            for buffer in statistics.buffers:
                self._flow.refresh(buffer)
