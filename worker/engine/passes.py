"""How cells are grouped into passes over the data, and one pass over one batch.

Every pass repeats the dense prefix, so it should hold many cells; its results are known only at its
end, so it should be short. Grouping follows measured time and changes no figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worker.engine.objectives import Objective, Tally
from worker.engine.pulse import Pulse
from worker.engine.steps import Registers
from worker.engine.suffix import Flow, Instruction, Suffix, execute

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


@dataclass
class Job:
    """One weight with the numbers of entries to remove from it in a pass.

    `rank` has the weight's shape: the entry leaves when its rank is below the number removed, which
    ascends along `counts`.
    `chunks` are the instructions of its suffix, `cost` the seconds of one cell on the whole split.
    """

    weight: Tensor
    rank: Tensor
    suffix: Suffix
    chunks: tuple[tuple[Instruction, ...], ...]
    counts: tuple[int, ...]
    cost: float
    objective: Objective
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        self.tally = self.objective.tally(len(self.counts))


class Pass:
    """Some jobs over the same batches.

    Within a batch the dense network runs once, and each job runs as soon as the values it needs
    are there. A value is dropped when neither the dense run nor a later job needs it, so what is
    alive at once is bounded by one batch's activations however long the split is.
    """

    def __init__(self, flow: Flow, jobs: Sequence[Job]) -> None:
        self._flow = flow
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
    ) -> None:
        """Add one batch to every job's tally.

        `dense` are the dense network's answers [batch, ...]; `batch_share` is the batch's part of
        the split, for progress. Weights have their old bits back whatever happens.
        """
        flow = self._flow
        registers = flow.registers()
        for at, tensor in zip(flow.inputs, inputs, strict=True):
            registers[at] = tensor
        self._run_waiting(-1, registers, labels, dense, pulse, batch_share)
        for at in self._order:
            registers[at] = flow.step(at)(registers)
            self._run_waiting(at, registers, labels, dense, pulse, batch_share)
            pulse.beat()

    def _run_waiting(
        self,
        at: int,
        registers: Registers,
        labels: Tensor,
        dense: np.ndarray[Any, Any],
        pulse: Pulse,
        batch_share: float,
    ) -> None:
        for job in self._waiting.get(at, ()):
            self._run_job(job, registers, labels, dense, pulse, job.cost * batch_share)
        for register in self._drop.get(at, ()):
            registers[register] = None

    def _run_job(
        self,
        job: Job,
        registers: Registers,
        labels: Tensor,
        dense: np.ndarray[Any, Any],
        pulse: Pulse,
        work: float,
    ) -> None:
        output, scratch, boundary = self._flow.output, self._scratch, job.suffix.boundary
        weight, original, rank = job.weight, job.weight.clone(), job.rank
        rows: list[Tensor] = []
        first = elements = 0
        try:
            for count in job.counts:
                # Counts ascend: what has left already stays away.
                weight.masked_fill_(rank < count, 0)
                for source in boundary:
                    scratch[source] = registers[source]
                for chunk in job.chunks:
                    execute(chunk, scratch)
                    pulse.beat()
                rows.append(job.objective.outputs(scratch[output], labels))
                scratch[output] = None
                elements += rows[-1].numel()
                if elements >= _ROW_ELEMENTS:
                    job.tally.add(torch.stack(rows), labels, dense, first)
                    first, elements = first + len(rows), 0
                    rows = []
                pulse.beat(work)
        finally:
            weight.copy_(original)
            for source in boundary:
                scratch[source] = None
        if rows:
            job.tally.add(torch.stack(rows), labels, dense, first)
