"""The exact analysis of every network of the matrix against the naive loop.

The default grid on up to 512 samples, all weights of small networks and some of large ones. CPU
seconds of one thread; the two take turns in one process, after a round that warms both, and the
best round of each counts. The naive loop keeps its batches and removal orders and has the engine's
allocator settings; the engine starts from nothing each time. It runs twice: computing nothing but
the loss ("loss"), and computing all the figures that the engine gives ("figures"). Run with `-s`
for the table.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
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
from worker.engine.objectives import objective_for
from worker.engine.sensitivity import SensitivityEngine
from worker.engine.weights import find_weight

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

ROUNDS, SECONDS = 2, 1.0
FEWEST, MOST = 32, 512
"""Samples: fewer for networks that take long, of which four weights are enough."""
SPARSITIES = DEFAULT_SPARSITIES
Figures = dict[tuple[str, int], float | None]
Batches = list[tuple[Any, Tensor]]


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
    """The loss of every cell."""

    def loss(batches: Batches) -> float | None:
        sums = [judged(task, model.module(*x), labels) for x, labels in batches]
        mean = sum(loss for loss, _ in sums) / sum(count for _, count in sums)
        return mean if math.isfinite(mean) else None

    return every_cell(model, split, units, loss)


def naive_with_figures(model: Any, split: Any, units: list[Any], task: str) -> Figures:
    """All figures of every cell, added up by the engine's own tallies, one cell at a time."""
    objective = objective_for(model, split)
    dense: list[np.ndarray] = []

    def figures(batches: Batches) -> float | None:
        tally, paired = objective.tally(1), bool(dense)
        for at, (x, labels) in enumerate(batches):
            outputs = objective.outputs(model.module(*x), labels).unsqueeze(0)
            answers = tally.add(outputs, labels, dense[at] if paired else None)[0]
            if not paired:
                dense.append(answers)
        return tally.evaluation(0).loss

    return every_cell(model, split, units, figures, first=True)


def every_cell(
    model: Any,
    split: Any,
    units: list[Any],
    measure: Callable[[Batches], float | None],
    first: bool = False,
) -> Figures:
    """For every cell: set the weights in place, run the whole network, put them back.

    `first`: measure the dense network before.
    """
    bounds = batch_bounds(len(split), default_batch_size(model, split))
    batches = [load_batch(model, split, start, stop) for start, stop in bounds]
    figures: Figures = {}
    with torch.inference_mode():
        if first:
            measure(batches)
        for unit in units:
            order = unit_order(model, unit, "magnitude", 0)
            weight = find_weight(model, unit.id)
            original = weight.clone()
            for sparsity in SPARSITIES:
                weight.masked_fill_(~mask_for(order, sparsity, unit.shape), 0)
                figures[unit.id, to_level(sparsity)] = measure(batches)
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


def enough(examined: Examined) -> int:
    """So many samples that the naive loop gets through four weights in SECONDS."""
    units = [unit for unit in examined.units if unit.prunable][:1]
    task = (examined.model, split_for(examined, FEWEST), units, examined.entry.task)
    naive(*task)
    spent, _ = timed(naive, *task)
    return max(FEWEST, min(MOST, int(FEWEST * SECONDS / (4 * spent))))


def race(label: str, folder: Path) -> tuple[float, float, float, int]:
    """Best CPU seconds of the naive loop, of that with all figures and of the engine, and the
    number of cells."""
    examined = Examined(BY_LABEL[label], folder)
    split = split_for(examined, enough(examined))
    model, task = examined.model, examined.entry.task
    units = some_units(examined, split)
    best = dict.fromkeys((naive, naive_with_figures, engine), math.inf)
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
    return best[naive], best[naive_with_figures], best[engine], len(expected)


@pytest.fixture(scope="module")
def ratios() -> Iterator[dict[str, tuple[float, float]]]:
    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    print(f"\n{'':56}  naive s           engine s  naive / engine")
    print(f"{'network':50} cells     loss  figures            loss  figures")
    found: dict[str, tuple[float, float]] = {}
    yield found
    torch.set_num_threads(threads)
    if not found:
        return
    for turn, name in enumerate(("loss", "figures")):
        each = {label: ratio[turn] for label, ratio in found.items()}
        slower = ", ".join(label for label, ratio in each.items() if ratio < 1) or "none"
        middle = sorted(each.values())[len(each) // 2]
        print(f"\n{name}: median {middle:.2f}, least {min(each.values()):.2f}; below 1: {slower}")


@pytest.mark.parametrize("label", BY_LABEL)
def test_an_analysis_against_the_naive_loop(
    label: str, ratios: dict[str, tuple[float, float]], tmp_path: Path
) -> None:
    bare, full, fast, cells = race(label, tmp_path)
    ratios[label] = bare / fast, full / fast
    seconds = f"{bare:8.3f} {full:8.3f} {fast:9.3f}"
    print(f"{label:50} {cells:5} {seconds} {bare / fast:6.2f} {full / fast:8.2f}", flush=True)
    assert cells >= len(SPARSITIES)
