"""Whether a second thread is worth a core, measured on one batch of the network at hand.

Two processes of one thread each measure twice the cells; one process with two threads has to run a
cell in little more than half the time to keep up, and on a busy machine often needs longer than
with one. The answer belongs to a machine and a moment: take it once, at the start, and keep it,
because the number of threads may change the last bits of sums.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.engine.suffix import Flow, execute

WORTH = 1.7
"""How many times as fast the second thread must make a run to be worth a process."""


@dataclass(frozen=True)
class Calibration:
    """Wall-clock seconds of one dense run of a batch, the best of several, by threads."""

    one: float
    two: float

    @property
    def speedup(self) -> float:
        return self.one / self.two if self.two > 0 else 0.0

    @property
    def threads(self) -> int:
        """Threads that a process should use: 2 only where they beat two processes of one."""
        return 2 if self.speedup > WORTH else 1


def calibrate(flow: Flow, inputs: Sequence[Tensor], rounds: int = 3) -> Calibration:
    """Time the dense run of one batch with one thread and with two, taking turns.

    `inputs` is a batch as the flow takes it. torch's threads are afterwards what they were before.
    """
    order = list(flow.prefix([flow.output]))
    instructions = [flow.instruction(at) for at in order]
    best = {1: float("inf"), 2: float("inf")}
    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            # The first run of each sets kernels up.
            for _ in range(rounds + 1):
                for threads in best:
                    torch.set_num_threads(threads)
                    registers = flow.registers()
                    for at, tensor in zip(flow.inputs, inputs, strict=True):
                        registers[at] = tensor
                    began = time.perf_counter()
                    execute(instructions, registers)
                    best[threads] = min(best[threads], time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    return Calibration(best[1], best[2])
