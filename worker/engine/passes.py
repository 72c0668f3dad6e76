"""How cells are grouped into passes over the data, and one pass over one batch.

Every pass repeats the dense prefix, so it should hold many cells; its results are known only at its
end, so it should be short. Grouping follows measured time and changes no figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from worker.engine.criteria import Removal
from worker.engine.objectives import Judged, Objective, Reference, Tally
from worker.engine.pulse import Pulse
from worker.engine.recalibration import Statistics
from worker.engine.steps import Registers
from worker.engine.suffix import Flow, Instruction, Suffix, execute

if TYPE_CHECKING:
    from worker.engine.near_ties import NearTies

PREFIX_SHARE = 0.1
"""The part of a pass that its dense prefix may take."""
FIRST_PREFIX_SHARE = 0.25
"""The same for the first pass, whose points people are waiting for."""
FIRST_SECONDS, PASS_SECONDS = 1.0, 4.0
_ROW_ELEMENTS = 2**20
_TALLY_BYTES = 128 * 2**20
_CHUNK_SECONDS = 0.1


def pass_length(costs: Sequence[float], prefix: float, position: int, row_bytes: int = 0) -> int:
    """How many of the next cells belong to a pass.

    `costs` are the estimated seconds of the cells in their order, `prefix` those of the dense
    prefix, `position` the number of passes so far. Passes start short and grow. `row_bytes` is what
    the figures of one cell take until the pass ends.
    """
    costs = costs[: max(1, _TALLY_BYTES // max(1, row_bytes))]
    share = FIRST_PREFIX_SHARE if position == 0 else PREFIX_SHARE
    target = min(PASS_SECONDS, FIRST_SECONDS * 2**position)
    budget = max(target, prefix * (1 - share) / share)
    spent = 0.0
    for count, cost in enumerate(costs, start=1):
        spent += cost
        if spent >= budget:
            # A short rest is not worth a prefix of its own.
            return len(costs) if sum(costs[count:]) < budget / 4 else count
    return len(costs)


def in_chunks(suffix: Suffix, seconds: Sequence[float]) -> tuple[tuple[Instruction, ...], ...]:
    """A suffix's instructions cut where a run of them takes about a tenth of a second.

    `seconds` are those of every node of the graph on one batch. Between chunks a stop is noticed.
    """
    chunks: list[tuple[Instruction, ...]] = []
    first, spent = 0, 0.0
    for position, node in enumerate(suffix.nodes):
        spent += seconds[node]
        if spent >= _CHUNK_SECONDS:
            chunks.append(suffix.instructions[first : position + 1])
            first, spent = position + 1, 0.0
    if first < len(suffix.nodes):
        chunks.append(suffix.instructions[first:])
    return tuple(chunks)


class Observer(Protocol):
    """Is shown what each batch said of some rows of a job."""

    def __call__(self, first: int, judged: Judged) -> None:
        """`first` is the row of the first of them."""
        ...


@dataclass
class Job:
    """One weight with the numbers of entries to remove from it in a pass.

    `removal` says which entries leave; `counts` ascend. `chunks` are the instructions of its
    suffix, `cost` the seconds of one cell on the whole split. `statistics`: for each count what
    batch norms are to have, where they are re-estimated.
    """

    weight: Tensor
    removal: Removal
    suffix: Suffix
    chunks: tuple[tuple[Instruction, ...], ...]
    counts: tuple[int, ...]
    cost: float
    objective: Objective
    statistics: Sequence[Statistics | None] = ()
    observe: Observer | None = None
    tally: Tally = field(init=False)
    rewritten: list[Tensor | None] = field(init=False)

    def __post_init__(self) -> None:
        self.tally = self.objective.tally(len(self.counts))
        # Made once a pass: to work out the weights that stay can cost as much as many batches.
        self.rewritten = [self.removal.weight(count) for count in self.counts]

    def prune(self, row: int) -> None:
        """Set the weight to what it is at the row's count; rows in their order."""
        new = self.rewritten[row]
        if new is None:
            # Counts ascend: what has left already stays away.
            self.weight.masked_fill_(self.removal.rank < self.counts[row], 0)
        else:
            self.weight.copy_(new)


class Pass:
    """Some jobs over the same batches.

    Within a batch the dense network runs once, and each job runs as soon as the values it needs
    are there. A value is dropped when neither the dense run nor a later job needs it, so what is
    alive at once is bounded by one batch's activations however long the split is. `near_ties`: by
    what answers that rounding could turn are computed again.
    """

    def __init__(self, flow: Flow, jobs: Sequence[Job], near_ties: NearTies | None = None) -> None:
        self._flow = flow
        self._near_ties = near_ties
        self._waiting: dict[int, list[Job]] = {}
        for job in jobs:
            self._waiting.setdefault(job.suffix.ready, []).append(job)
        wanted = {at for job in jobs for at in job.suffix.boundary}
        self._order = list(flow.prefix(wanted))
        last = dict.fromkeys(flow.inputs, -1)
        for at in self._order:
            last.setdefault(at, at)
            for source in flow.reads(at):
                last[source] = at
        for job in jobs:
            for source in job.suffix.boundary:
                last[source] = max(last[source], job.suffix.ready)
        self._drop: dict[int, list[int]] = {}
        for register, at in last.items():
            self._drop.setdefault(at, []).append(register)
        self._scratch = flow.registers()

    def run_batch(
        self,
        inputs: Sequence[Tensor],
        labels: Tensor,
        dense: np.ndarray[Any, Any],
        pulse: Pulse,
        batch_share: float,
        reference: Reference | None = None,
    ) -> None:
        """Add one batch to every job's tally.

        `dense` are the dense network's answers [batch, ...] and `reference` its outputs, as
        `Tally.judge` takes them; `batch_share` is the batch's part of the split, for progress.
        Weights and statistics have their old bits back whatever happens.
        """
        flow = self._flow
        registers = flow.registers()
        for at, tensor in zip(flow.inputs, inputs, strict=True):
            registers[at] = tensor
        batch = _Batch(inputs, labels, dense, reference, batch_share)
        self._run_waiting(-1, registers, batch, pulse)
        for at in self._order:
            registers[at] = flow.step(at)(registers)
            self._run_waiting(at, registers, batch, pulse)
            pulse.beat()

    def _run_waiting(self, at: int, registers: Registers, batch: _Batch, pulse: Pulse) -> None:
        for job in self._waiting.get(at, ()):
            self._run_job(job, registers, batch, pulse)
        for register in self._drop.get(at, ()):
            registers[register] = None

    def _run_job(self, job: Job, registers: Registers, batch: _Batch, pulse: Pulse) -> None:
        flow, scratch, boundary = self._flow, self._scratch, job.suffix.boundary
        output, original = flow.output, job.weight.clone()
        waiting = _Rows(job, batch, original, self._near_ties)
        try:
            for row in range(len(job.counts)):
                job.prune(row)
                flow.refresh(job.weight)
                for source in boundary:
                    scratch[source] = registers[source]
                with _in_force(flow, job.statistics[row] if job.statistics else None):
                    for chunk in job.chunks:
                        execute(chunk, scratch)
                        pulse.beat()
                waiting.add(job.objective.outputs(scratch[output], batch.labels))
                scratch[output] = None
                pulse.beat(job.cost * batch.share)
            waiting.judge()
        finally:
            job.weight.copy_(original)
            flow.refresh(job.weight)
            for source in boundary:
                scratch[source] = None


class Whole:
    """The whole network as a function of a batch's inputs, dropping values after their last use."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._order = list(flow.prefix([flow.output]))
        last = {source: at for at in self._order for source in flow.reads(at)}
        self._drop: dict[int, list[int]] = {}
        for source, at in last.items():
            self._drop.setdefault(at, []).append(source)

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        """What the network returns."""
        flow = self._flow
        registers = flow.registers()
        for at, tensor in zip(flow.inputs, inputs, strict=True):
            registers[at] = tensor
        for at in self._order:
            registers[at] = flow.step(at)(registers)
            for source in self._drop.get(at, ()):
                registers[source] = None
        return registers[flow.output]


@dataclass(frozen=True)
class _Batch:
    inputs: Sequence[Tensor]
    labels: Tensor
    dense: np.ndarray[Any, Any]
    reference: Reference | None
    share: float


class _Rows:
    """Outputs of a job's rows, judged together as soon as they are many."""

    def __init__(
        self, job: Job, batch: _Batch, original: Tensor, near_ties: NearTies | None
    ) -> None:
        self._job = job
        self._batch = batch
        self._original = original
        self._near_ties = near_ties
        self._rows: list[Tensor] = []
        self._first = self._elements = 0

    def add(self, outputs: Tensor) -> None:
        self._rows.append(outputs)
        self._elements += outputs.numel()
        if self._elements >= _ROW_ELEMENTS:
            self.judge()

    def judge(self) -> None:
        """May leave the weight unpruned: the next row prunes it anew."""
        if not self._rows:
            return
        job, batch, first = self._job, self._batch, self._first
        outputs = torch.stack(self._rows)
        if self._near_ties is not None:
            for row in self._near_ties.rows(outputs):
                outputs[row] = self._again(first + row, self._near_ties)
        judged = job.tally.judge(outputs, batch.labels, batch.dense, first, batch.reference)
        if job.observe is not None:
            job.observe(first, judged)
        self._first, self._elements = first + len(self._rows), 0
        self._rows = []

    def _again(self, row: int, near_ties: NearTies) -> Tensor:
        job, statistics = self._job, self._job.statistics
        try:
            job.weight.copy_(self._original)
            job.prune(row)
            own = statistics[row] if statistics else None
            with own if own is not None else nullcontext():
                return near_ties.again(self._batch.inputs, self._batch.labels)
        finally:
            job.weight.copy_(self._original)


@contextmanager
def _in_force(flow: Flow, statistics: Statistics | None) -> Iterator[None]:
    if statistics is None:
        yield
        return
    statistics.apply()
    try:
        for buffer in statistics.buffers:
            flow.refresh(buffer)
        yield
    finally:
        statistics.restore()
        for buffer in statistics.buffers:
            flow.refresh(buffer)
