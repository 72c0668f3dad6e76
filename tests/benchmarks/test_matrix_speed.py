"""The exact analysis of every network of the matrix against the naive loop.

The default grid on 512 samples, all weights of small networks and some of large ones. CPU seconds
of one thread; the two take turns in one process, after a round that warms both, and the best round
of each counts. The naive loop keeps its batches and removal orders, has the engine's allocator
settings and computes nothing but the loss; the engine starts from nothing each time and gives all
figures. Run with `-s` for the table.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from app.domain.levels import DEFAULT_SPARSITIES, to_level
from tests.matrix.examine import Examined, split_for
from tests.matrix.networks import BY_LABEL
from tests.matrix.reference import by_place
from worker.engine.allocator import keep_freed_memory
from worker.engine.batches import batch_bounds, default_batch_size, load_batch
from worker.engine.masks import mask_for, unit_order
from worker.engine.sensitivity import SensitivityEngine
from worker.engine.weights import find_weight

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

ROUNDS, SAMPLES, SECONDS = 2, 512, 1.0
SPARSITIES = DEFAULT_SPARSITIES
Figures = dict[tuple[str, int], float | None]


def judged(task: str, output: Tensor, labels: Tensor) -> tuple[float, int]:
    """The sum of the losses of a batch and the number of answers; no other figure is computed."""
    output = output[: len(labels)].double()
    if task == "regression":
        output = output.reshape(labels.shape)
        return float((output - labels).square().sum()), labels.numel()
    if task == "multi-label":
        losses = functional.binary_cross_entropy_with_logits(
            output, labels.double(), reduction="sum"
        )
        return float(losses), labels.numel()
    scores = output if task == "single-label" else by_place(output, labels)
    places = labels.reshape(-1)
    losses = functional.cross_entropy(scores, places, reduction="sum")
    return float(losses), int((places >= 0).sum())


def naive(model: Any, split: Any, units: list[Any], task: str) -> Figures:
    """For every cell: set the weights in place, run the whole network, put them back."""
    bounds = batch_bounds(len(split), default_batch_size(model, split))
    batches = [load_batch(model, split, start, stop) for start, stop in bounds]
    figures: Figures = {}
    with torch.inference_mode():
        for unit in units:
            order = unit_order(model, unit, "magnitude", 0)
            weight = find_weight(model, unit.id)
            original = weight.clone()
            for sparsity in SPARSITIES:
                weight.masked_fill_(~mask_for(order, sparsity, unit.shape), 0)
                sums = [judged(task, model.module(*x), labels) for x, labels in batches]
                answers = sum(count for _, count in sums)
                loss = sum(loss for loss, _ in sums) / answers
                figures[unit.id, to_level(sparsity)] = loss if math.isfinite(loss) else None
                weight.copy_(original)
    return figures


def engine(model: Any, split: Any, units: list[Any], task: str) -> Figures:
    figures: Figures = {}
    measuring = SensitivityEngine(model, split, units)
    measuring.run(
        measuring.cells([to_level(sparsity) for sparsity in SPARSITIES]),
        lambda r: figures.__setitem__((r.cell.unit, r.cell.level), r.evaluation.loss),
    )
    return figures


def timed(way: Callable[..., Figures], *task: Any) -> tuple[float, Figures]:
    began = time.process_time()
    figures = way(*task)
    return time.process_time() - began, figures


def some_units(examined: Examined, split: Any) -> list[Any]:
    """As many units, evenly spread, as the naive loop gets through in SECONDS."""
    units = [unit for unit in examined.units if unit.prunable]
    task = (examined.model, split, units[:1], examined.entry.task)
    naive(*task)
    spent, _ = timed(naive, *task)
    count = max(4, int(SECONDS / spent))
    step = max(1.0, len(units) / count)
    return [units[int(at * step)] for at in range(min(count, len(units)))]


def race(label: str, folder: Path) -> tuple[float, float, int]:
    """Best CPU seconds of the naive loop and of the engine, and the number of cells."""
    examined = Examined(BY_LABEL[label], folder)
    model, split, task = examined.model, split_for(examined, SAMPLES), examined.entry.task
    units = some_units(examined, split)
    best = {naive: float("inf"), engine: float("inf")}
    expected: Figures = {}
    for turn in range(ROUNDS + 1):
        for way in best:
            spent, figures = timed(way, model, split, units, task)
            expected = expected or figures
            assert figures.keys() == expected.keys()
            for cell, loss in figures.items():
                wanted = expected[cell]
                assert (loss is None) == (wanted is None), cell
                assert loss is None or loss == pytest.approx(wanted, rel=1e-9), cell
            if turn:
                best[way] = min(best[way], spent)
    return best[naive], best[engine], len(expected)


@pytest.fixture(scope="module")
def ratios() -> Iterator[dict[str, float]]:
    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    print(f"\n{'network':50} cells  naive s  engine s  naive / engine")
    found: dict[str, float] = {}
    yield found
    torch.set_num_threads(threads)
    slower = ", ".join(label for label, ratio in found.items() if ratio < 1) or "none"
    middle = sorted(found.values())[len(found) // 2] if found else 0.0
    print(f"\nmedian {middle:.2f}, least {min(found.values()):.2f}; below 1: {slower}")


@pytest.mark.parametrize("label", BY_LABEL)
def test_an_analysis_against_the_naive_loop(
    label: str, ratios: dict[str, float], tmp_path: Path
) -> None:
    slow, fast, cells = race(label, tmp_path)
    ratios[label] = slow / fast
    print(f"{label:50} {cells:5} {slow:8.3f} {fast:9.3f} {slow / fast:10.2f}", flush=True)
    assert cells >= len(SPARSITIES)
