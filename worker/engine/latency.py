"""How long one forward pass takes on this machine, end to end."""

from __future__ import annotations

import statistics
import time

import torch

from worker.engine.graph import CanonicalModel

WARM_UP = 3
REPEATS = 20
TIME_LIMIT_SECONDS = 2.0


def latency_milliseconds(model: CanonicalModel) -> float:
    """Median milliseconds of one forward pass on one sample (or on the model's fixed batch).

    Zeros do not make dense kernels faster, so a pruned network's figure is expected to equal the
    dense one's: it is reported so that nobody has to believe otherwise.
    """
    batch = model.fixed_batch or 1
    inputs = [
        torch.zeros([batch, *(size or 1 for size in spec.shape[1:])], dtype=spec.dtype)
        for spec in model.inputs
    ]
    timings: list[float] = []
    deadline = time.perf_counter() + TIME_LIMIT_SECONDS
    with torch.inference_mode():
        for turn in range(WARM_UP + REPEATS):
            started = time.perf_counter()
            model.module(*inputs)
            ended = time.perf_counter()
            if turn >= WARM_UP or not timings:
                timings.append((ended - started) * 1000)
            if ended > deadline:
                break
    return statistics.median(timings)
