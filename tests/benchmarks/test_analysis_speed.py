"""A whole analysis against the naive loop, and what a cell costs as units become many.

Times are CPU seconds of one thread; the ways take turns, so that a busy machine hurts all of them.
Run with `-s` to see the tables; set PRUNESCOPE_BENCH_DATA to time ResNet-20 too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks.analysis_networks import data_folder, deep
from tests.benchmarks.contestant import METHODS
from tests.unit.engine.traced import plain_units
from worker.engine.evaluation import evaluate
from worker.engine.masks import MaskSet
from worker.engine.sensitivity import CellResult, SensitivityEngine

pytestmark = pytest.mark.benchmark

ROOT = Path(__file__).parents[2]
ROUNDS = 3
NETWORKS = ["digits", *(["resnet20"] if data_folder() else [])]


class Contestant:
    """A process that runs one method on request."""

    def __init__(self, network: str, method: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.contestant", network, method],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == "ready"

    def round(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=60)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_whole_analysis_against_the_naive_loop(network: str) -> None:
    contestants = {method: Contestant(network, method) for method in METHODS}
    rounds: dict[str, list[dict[str, Any]]] = {method: [] for method in contestants}
    try:
        for contestant in contestants.values():
            contestant.ready()
        for _ in range(ROUNDS):
            for method, contestant in contestants.items():
                rounds[method].append(contestant.round())
    finally:
        for contestant in contestants.values():
            contestant.close()
    tables = [found["table"] for results in rounds.values() for found in results]
    assert tables[0]
    assert all(table == tables[0] for table in tables), "the ways disagree"
    best = {method: min(found["cpu"] for found in results) for method, results in rounds.items()}
    print(f"\n{network}: {len(tables[0])} cells, best of {ROUNDS} rounds")
    for method, results in rounds.items():
        print(
            f"  {method:12} {best[method]:8.2f} CPU s   {1e3 * best[method] / len(tables[0]):8.2f}"
            f" ms a cell   {results[-1]['peak'] / 2**20:6.0f} MiB at the peak"
            f"   {best['naive'] / best[method]:6.2f} times as fast as naive"
        )


def test_what_a_cell_costs_as_units_become_many() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    print("\nunits   dense run   a cell   a cell / half a dense run   preparation a unit")
    try:
        for depth in (10, 100, 500):
            scale(depth)
    finally:
        torch.set_num_threads(threads)


def scale(depth: int) -> None:
    """One row of the table. In a chain a suffix is half of the network on average."""
    model, split = deep(depth)
    units = plain_units(model)
    evaluate(model, split)
    began = time.process_time()
    evaluate(model, split, batch_size=len(split))
    dense = time.process_time() - began
    began = time.process_time()
    engine = SensitivityEngine(model, split, units)
    baseline = engine.baseline()
    engine.run(engine.cells([1]), lambda _: None)
    preparation = time.process_time() - began
    results: list[CellResult] = []
    began = time.process_time()
    engine.run(engine.cells([500_000, 900_000]), results.append)
    cell = (time.process_time() - began) / len(results)
    print(
        f"{depth:5} {1e3 * dense:8.2f} ms {1e3 * cell:6.2f} ms {2 * cell / dense:20.2f}"
        f" {1e3 * (preparation - dense) / depth:24.3f} ms"
    )
    assert len(results) == 2 * depth
    for result in results[:: depth // 2]:
        masks = MaskSet.from_plan(model, units, {result.cell.unit: result.cell.level / 1e6})
        expected = evaluate(model, split, masks=masks, reference=engine.predictions())
        assert result.evaluation == expected
    assert baseline == engine.predictions().evaluation
