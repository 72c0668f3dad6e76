"""One way of analysing one network, in a process of its own: a line in, a round, a line out.

`python -m tests.benchmarks.contestant NETWORK METHOD`. Processes keep the ways from warming each
other's caches and allocator, and give each its own peak of memory.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from tests.benchmarks import analysis_networks
from tests.unit.engine.traced import plain_units
from worker.engine.allocator import keep_freed_memory
from worker.engine.evaluation import batch_bounds, default_batch_size, load_batch
from worker.engine.masks import mask_for, unit_order
from worker.engine.sensitivity import SensitivityEngine
from worker.engine.weights import find_weight

LEVELS = {"digits": [100_000 * i for i in range(1, 10)], "resnet20": [300_000, 600_000, 900_000]}
Table = dict[str, tuple[int, float | None]]


def naive(model: Any, split: Any, units: list[Any], levels: list[int]) -> Table:
    """For every cell: set the weights in place, run the whole network, put them back."""
    size = default_batch_size(model, split)
    bounds = batch_bounds(len(split), size)
    table: Table = {}
    for unit in (unit for unit in units if unit.prunable):
        order = unit_order(model, unit, "magnitude", 0)
        weight = find_weight(model, unit.id)
        original = weight.clone()
        for level in levels:
            weight.masked_fill_(~mask_for(order, level / 1e6, unit.shape), 0)
            correct, loss = 0, 0.0
            for start, stop in bounds:
                inputs, labels = load_batch(model, split, start, stop)
                with torch.inference_mode():
                    logits = model.module(*inputs).double()
                    losses = functional.cross_entropy(logits, labels, reduction="none")
                    correct += int((logits.argmax(1) == labels).sum())
                    loss += float(losses.numpy().sum())
            weight.copy_(original)
            table[f"{unit.id}@{level}"] = (correct, loss / len(split))
    return table


def engine(model: Any, split: Any, units: list[Any], levels: list[int]) -> Table:
    """The engine, from nothing: its preparation and dense run count."""
    measuring = SensitivityEngine(model, split, units)
    table: Table = {}
    measuring.run(
        measuring.cells(levels),
        lambda r: table.__setitem__(
            f"{r.cell.unit}@{r.cell.level}", (r.evaluation.correct, r.evaluation.loss)
        ),
    )
    return table


def naive_keeping_memory(*task: Any) -> Table:
    """The naive loop with the engine's allocator settings: what is left is the engine's own."""
    keep_freed_memory()
    return naive(*task)


METHODS: dict[str, Callable[..., Table]] = {
    "naive": naive,
    "naive+malloc": naive_keeping_memory,
    "engine": engine,
}


def resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(network: str, method: str) -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    model, split = getattr(analysis_networks, network)()
    units = plain_units(model)
    gc.collect()
    before = resident_bytes()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.process_time()
        table = METHODS[method](model, split, units, LEVELS[network])
        spent = time.process_time() - began
        answer = {"cpu": spent, "peak": resident_bytes() - before, "table": table}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
