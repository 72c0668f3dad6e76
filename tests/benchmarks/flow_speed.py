"""What a cell costs by the fast flow, beside the naive loop: one network, one process a way.

`python -m tests.benchmarks.flow_speed NETWORK [WAY ...]` prints CPU seconds of one thread per cell
over all units and five levels, rounds interleaved, and how the figures compare. The naive way
copies the whole model for every cell and runs all of it, with malloc as it comes; its cells all
cost the same, so only every `STRIDE`-th unit at one level is run.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tests.benchmarks import analysis_networks
from tests.unit.engine.traced import plain_units
from worker.engine.allocator import keep_freed_memory
from worker.engine.batches import batch_bounds, default_batch_size, load_batch
from worker.engine.flow_options import FlowOptions
from worker.engine.suffix import Flow, execute
from worker.engine.weights import find_weight

LEVELS = (100_000, 300_000, 500_000, 700_000, 900_000)
NAIVE_LEVEL = 700_000
STRIDE = int(os.environ.get("PRUNESCOPE_BENCH_STRIDE", "3"))
ROUNDS = int(os.environ.get("PRUNESCOPE_BENCH_ROUNDS", "3"))
SAMPLES = int(os.environ.get("PRUNESCOPE_BENCH_SAMPLES", "128"))
OPTIONS = {
    "plain": FlowOptions(),
    "fast": FlowOptions(fuse=True),
    "bfloat16": FlowOptions("bfloat16", fuse=True),
}
Table = dict[str, list[Any]]


def prunable(model: Any) -> list[Any]:
    return [unit for unit in plain_units(model) if unit.prunable]


def rank_of(weight: Tensor) -> Tensor:
    """Entry i leaves as number `rank[i]`, the smallest first."""
    return weight.abs().flatten().argsort(stable=True).argsort().reshape(weight.shape)


def naive(model: Any, split: Any, size: int) -> Callable[[], Table]:
    units = prunable(model)[::STRIDE]
    ranks = {unit.id: rank_of(find_weight(model, unit.id)) for unit in units}

    def measure() -> Table:
        table: Table = {}
        for unit in units:
            cell = copy.deepcopy(model.module)
            weight = cell.get_parameter(unit.id).detach()
            weight.masked_fill_(ranks[unit.id] < round(NAIVE_LEVEL / 1e6 * unit.size), 0)
            outputs = []
            for start, stop in batch_bounds(len(split), size):
                inputs, _ = load_batch(model, split, start, stop)
                outputs.append(cell(*inputs).clone())
            table[f"{unit.id}@{NAIVE_LEVEL}"] = figures(outputs, split)
        return table

    return measure


def flowing(options: FlowOptions) -> Callable[[Any, Any, int], Callable[[], Table]]:
    def prepare(model: Any, split: Any, size: int) -> Callable[[], Table]:
        keep_freed_memory()
        units = prunable(model)
        flow = Flow(model.module, load_batch(model, split, 0, 2)[0], options)
        cells = []
        for unit in units:
            weight = find_weight(model, unit.id)
            cells.append((unit, weight, rank_of(weight), flow.suffix(weight)))
        cells.sort(key=lambda cell: cell[3].ready)
        return lambda: sweep(flow, cells, model, split, size)

    return prepare


def sweep(flow: Flow, cells: list[Any], model: Any, split: Any, size: int) -> Table:
    """Every cell on every batch, the dense run once a batch."""
    outputs: dict[str, list[Tensor]] = {}
    order = list(flow.prefix({at for cell in cells for at in cell[3].boundary}))
    for start, stop in batch_bounds(len(split), size):
        inputs, _ = load_batch(model, split, start, stop)
        registers = flow.registers()
        for at, tensor in zip(flow.inputs, inputs, strict=True):
            registers[at] = tensor
        waiting = list(cells)
        for at in [-1, *order]:
            if at >= 0:
                registers[at] = flow.step(at)(registers)
            while waiting and waiting[0][3].ready <= at:
                cell(flow, registers, *waiting.pop(0), outputs)
    return {key: figures(found, split) for key, found in outputs.items()}


def cell(
    flow: Flow, registers: Any, unit: Any, weight: Tensor, rank: Tensor, suffix: Any, outputs: Any
) -> None:
    original = weight.clone()
    scratch = flow.registers()
    for level in LEVELS:
        weight.masked_fill_(rank < round(level / 1e6 * unit.size), 0)
        flow.refresh(weight)
        for source in suffix.boundary:
            scratch[source] = registers[source]
        execute(suffix.instructions, scratch)
        found = scratch[flow.output]
        outputs.setdefault(f"{unit.id}@{level}", []).append(found.clone())
    weight.copy_(original)
    flow.refresh(weight)


def figures(outputs: list[Tensor], split: Any) -> list[Any]:
    logits = torch.cat(outputs).double()
    labels = split.batch(0, len(split))[1]
    loss = float(functional.cross_entropy(logits, labels))
    return [loss, logits.argmax(1).tolist()]


WAYS: dict[str, Any] = {"naive": naive} | {n: flowing(option) for n, option in OPTIONS.items()}


def contend(network: str, way: str) -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    model, split = getattr(analysis_networks, network)(SAMPLES)
    model.train_mode(False)
    with torch.inference_mode():
        began = time.process_time()
        measure = WAYS[way](model, split, default_batch_size(model, split))
        prepared = time.process_time() - began
        print(default_batch_size(model, split), flush=True)
        for _ in sys.stdin:
            began = time.process_time()
            table = measure()
            spent = time.process_time() - began
            print(json.dumps({"cpu": spent, "prepared": prepared, "table": table}), flush=True)


def start(network: str, way: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.benchmarks.flow_speed", "--contend", network, way]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)


def ask(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def compare(table: Table, reference: Table) -> str:
    answers = [
        now != then
        for key, (_, classes) in reference.items()
        for then, now in zip(classes, table[key][1], strict=True)
    ]
    losses = max(abs(table[key][0] / reference[key][0] - 1) for key in reference)
    return f"{sum(answers)} of {len(answers)} answers differ, losses by {losses:.1e}"


def each_of(found: dict[str, Any]) -> float:
    """CPU seconds of a cell."""
    return found["cpu"] / len(found["table"])


def main(network: str, *ways: str) -> None:
    contestants = {way: start(network, way) for way in ("naive", *(ways or list(OPTIONS)))}
    for process in contestants.values():
        assert process.stdout is not None
        size = process.stdout.readline().strip()
    rounds = [{way: ask(process) for way, process in contestants.items()} for _ in range(ROUNDS)]
    for process in contestants.values():
        process.communicate()
    reference = rounds[0]["naive"]["table"]
    print(f"{network}: {SAMPLES} samples in batches of {size}")
    for way in contestants:
        found = rounds[0][way]
        ratios = sorted(each_of(one["naive"]) / each_of(one[way]) for one in rounds)
        each, middle = min(each_of(one[way]) for one in rounds), ratios[len(ratios) // 2]
        print(
            f"  {way:9} {len(found['table']):4} cells {1e3 * each:8.2f} ms each {middle:6.2f}"
            f" times as fast   prepared in {found['prepared']:5.2f} s"
            f"   {compare(found['table'], reference)}"
        )


if __name__ == "__main__":
    contend(*sys.argv[2:]) if sys.argv[1] == "--contend" else main(*sys.argv[1:])
