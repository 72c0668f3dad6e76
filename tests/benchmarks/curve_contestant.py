"""One way of measuring a network's curves, in a process of its own: a line in, a round, a line out.

`python -m tests.benchmarks.curve_contestant NETWORK SAMPLES WAY [PART OF [THREADS]]`. The naive way
copies the whole model for every cell and runs all of it, with malloc as it comes; since that takes
hours, it is measured on some cells and samples and told a sample of a cell. `PART OF` deals the
units out. NNI (`nni`) is timed the same way, where it is installed.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.domain.adaptive import Goal, drop_of
from tests.benchmarks import analysis_networks
from tests.benchmarks.analysis_networks import data_folder
from tests.unit.engine.traced import plain_units, split_of
from worker.engine.batches import batch_bounds, default_batch_size, load_batch
from worker.engine.cost import measure as measure_costs
from worker.engine.curves import CurveEngine, Finding
from worker.engine.flow_options import FlowOptions
from worker.engine.search import GridSearch, KneeSearch
from worker.engine.suffix import Flow
from worker.engine.weights import find_weight

LEVELS = [100_000 * step for step in range(1, 10)] + [950_000]
GOALS = {
    "exact": Goal(whole=True),
    "adaptive": Goal(half_width=0.01, confidence=0.99),
    "half": Goal(half_width=0.005, confidence=0.99),
    "knee": Goal(half_width=0.01, confidence=0.99),
}
NAIVE_CELLS, NAIVE_SAMPLES = 6, 256
PEER_LEVELS = (0.5, 0.75)


def network_of(name: str, samples: int) -> tuple[Any, Any]:
    if name != "resnet20":
        return getattr(analysis_networks, name)(samples)
    folder = data_folder()
    assert folder is not None
    model, _ = analysis_networks.resnet20(4)
    with np.load(folder / "cifar10_part.npz") as data:
        images = data["x_test"].astype(np.float32) / 255
        labels = data["y_test"].astype(np.int64)
    images = (images - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    images = images.transpose(0, 3, 1, 2).astype(np.float32)
    # More samples of the same kind: the few that there are, moved and mirrored.
    moves = [(dx, dy, way) for dx in (0, 1, -1, 2) for dy in (0, 1, -1) for way in (1, -1)]
    parts = [np.roll(images, (dy, dx), (2, 3))[..., ::way] for dx, dy, way in moves]
    count = -(-samples // len(images))
    many = np.ascontiguousarray(np.concatenate(parts[:count])[:samples])
    return model, split_of([many], np.tile(labels, count)[:samples])


def naive(model: Any, split: Any, units: list[Any]) -> dict[str, Any]:
    """CPU seconds of a sample of a cell."""
    size = default_batch_size(model, split)
    chosen = units[:: max(1, len(units) // NAIVE_CELLS)][:NAIVE_CELLS]
    samples = min(NAIVE_SAMPLES // size * size or size, len(split))
    began = time.process_time()
    for unit in chosen:
        cell = copy.deepcopy(model.module)
        weight = cell.get_parameter(unit.id).detach()
        order = weight.abs().flatten().argsort(stable=True)
        weight.view(-1)[order[: unit.size // 2]] = 0
        for start, stop in batch_bounds(samples, size):
            inputs, labels = load_batch(model, split, start, stop)
            with torch.inference_mode():
                outputs = cell(*inputs)
                logits = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
                torch.nn.functional.cross_entropy(logits, labels)
                (logits.argmax(1) == labels).sum()
    return {"cpu": (time.process_time() - began) / (samples * len(chosen))}


def peer(model: Any, split: Any, units: list[Any]) -> dict[str, Any]:
    """NNI's own sensitivity analysis of some convolutions, on the first samples of the split.

    `table`: the share of right answers by unit and level.
    """
    from nni.compression.pytorch.utils.sensitivity_analysis import (  # type: ignore[import-not-found]
        SensitivityAnalysis,
    )

    size = default_batch_size(model, split)
    samples = min(NAIVE_SAMPLES // size * size or size, len(split))
    module = copy.deepcopy(model.module)
    layers = {f"{name}.weight": name for name, part in module.named_modules()
              if isinstance(part, torch.nn.Conv2d)}  # fmt: skip
    found = [layers[unit.id] for unit in units if unit.id in layers]
    chosen = found[:: max(1, len(found) // 3)][:3]

    def score() -> float:
        right = 0
        for start, stop in batch_bounds(samples, size):
            inputs, labels = load_batch(model, split, start, stop)
            with torch.inference_mode():
                right += int((module(*inputs).argmax(1) == labels).sum())
        return right / samples

    began = time.process_time()
    study = SensitivityAnalysis(module, score, list(PEER_LEVELS), "level")
    said = study.analysis(specified_layers=chosen)
    spent = time.process_time() - began
    table = {
        f"{name}.weight@{round(float(level) * 1e6)}": share
        for name, curve in said.items()
        for level, share in curve.items()
    }
    return {"cpu": spent / (samples * len(table)), "table": table, "samples": samples}


def engine(way: str) -> Callable[[Any, Any, list[Any]], dict[str, Any]]:
    name, _, precision = way.partition("-")

    def measure(model: Any, split: Any, units: list[Any]) -> dict[str, Any]:
        # Forgets the peak of making the data.
        Path("/proc/self/clear_refs").write_text("5")
        began, wall, before = time.process_time(), time.perf_counter(), memory("VmRSS")
        options = FlowOptions(precision or "float32", fuse=True)  # type: ignore[arg-type]
        curves = CurveEngine(model, split, units, options=options)
        runs = curves.runs_for([(cell, GOALS[name]) for cell in curves.cells(LEVELS)])
        search = (
            KneeSearch(runs, lambda: curves.strata, 0.01) if name == "knee" else GridSearch(runs)
        )
        first: dict[Any, float] = {}
        ready: dict[str, float] = {}
        table: dict[str, Any] = {}

        def hear(finding: Finding) -> None:
            now = time.perf_counter() - wall
            first.setdefault(finding.cell, now)
            if finding.samples > 32:
                ready.setdefault(finding.cell.unit, now)
            if finding.settled:
                drop = drop_of(curves.strata, finding.run.sums, 0.99)
                assert drop is not None
                key = f"{finding.cell.unit}@{finding.cell.level}"
                table[key] = [drop.value, drop.low, drop.high, finding.samples]

        curves.measure(search, hear)
        spent = time.process_time() - began
        return {
            "floor": floor(model, split, runs, precision or "float32"),
            "cpu": spent,
            "wall": time.perf_counter() - wall,
            "cells": len(runs),
            "dense": curves.baseline().accuracy,
            "evaluated": curves.evaluated_samples,
            "preview": max(first.values()),
            "first": max(ready.values(), default=0.0),
            "grown": memory("VmHWM") - before,
            "table": table,
        }

    return measure


def memory(name: str) -> int:
    """This process's resident bytes: `VmRSS` now, `VmHWM` at most."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith(name + ":"))


def floor(model: Any, split: Any, runs: Any, precision: str) -> float:
    """CPU seconds of the multiplications that can't be avoided, at the machine's best rate.

    Those of the suffix of each cell, for each sample that it has seen: what depends on a weight has
    to be computed anew when the weight changes.
    """
    inputs, _ = load_batch(model, split, 0, 2)
    costs, _ = measure_costs(model.module, inputs)
    nodes = [node for node in model.module.graph.nodes if node.op != "output"]
    flow = Flow(model.module, inputs)
    macs = {
        run.unit: sum(costs[nodes[at]].macs for at in flow.suffix(weight).nodes) / len(inputs[0])
        for run in runs
        for weight in [find_weight(model, run.unit)]
    }
    return sum(macs[run.unit] * run.seen for run in runs) / rate(precision)


def rate(precision: str) -> float:
    """Multiplications a CPU second of a large matrix product."""
    size = 1024
    one = torch.randn(size, size, dtype=getattr(torch, precision))
    torch.mm(one, one)
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        torch.mm(one, one)
        best = min(best, time.process_time() - began)
    return size**3 / best


def main(
    network: str, samples: str, way: str, part: str = "0", of: str = "1", threads: str = "1"
) -> None:
    torch.set_num_threads(int(threads))
    torch.set_grad_enabled(False)
    model, split = network_of(network, int(samples))
    model.train_mode(False)
    units = [unit for unit in plain_units(model) if unit.prunable]
    for unit in units:
        find_weight(model, unit.id)
    measure = {"naive": naive, "nni": peer}.get(way) or engine(way)
    print("ready", flush=True)
    for _ in sys.stdin:
        found = measure(model, split, units[int(part) :: int(of)])
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
