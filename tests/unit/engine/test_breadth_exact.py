"""The exact analysis equals the naive loop on recurrent nets, transformers and block nets."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from app.domain.levels import to_level
from tests.unit.engine import naive
from tests.unit.engine.breadth.attention import ATTENTION
from tests.unit.engine.breadth.oddities import ODDITIES
from tests.unit.engine.breadth.recurrent import RECURRENT
from tests.unit.engine.exports import export
from tests.unit.engine.models import ZOO
from tests.unit.engine.traced import split_of
from worker.engine.formats.pt2 import load_model
from worker.engine.sensitivity import Cell, CellResult, SensitivityEngine
from worker.engine.units import weight_units

SAMPLES, BATCH = 20, 8
SPARSITIES = (0.4, 0.9)
NETWORKS = {**RECURRENT.networks, **ATTENTION.networks, **ODDITIES.networks, **ZOO}
CHOSEN = ["lstm", "gru", "gru_cells", "cells", "learned_states", "encoder", "multi_head"]
CHOSEN += ["rotary", "convnext", "unet", "weight_normed"]


@pytest.mark.parametrize("name", CHOSEN)
def test_every_cell_equals_the_naive_loop(name: str, tmp_path: Path) -> None:
    net, inputs = NETWORKS[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = export(net, inputs, tmp_path / "m.pt2")
    model = load_model(path, "pt2")
    generator = np.random.default_rng(0)
    arrays = [
        generator.standard_normal((SAMPLES, *t.shape[1:])).astype(np.float32)
        if t.is_floating_point()
        else generator.integers(0, int(t.max()) + 1, (SAMPLES, *t.shape[1:]))
        for t in inputs
    ]
    split = split_of(arrays, generator.integers(0, 2, SAMPLES)).cast([t.dtype for t in inputs])
    units = weight_units(model)
    engine = SensitivityEngine(model, split, units, batch_size=BATCH, threads=1)
    results: dict[Cell, CellResult] = {}
    levels = [to_level(sparsity) for sparsity in SPARSITIES]
    engine.run(engine.cells(levels), lambda r: results.__setitem__(r.cell, r))
    prunable = [unit.id for unit in units if unit.prunable]
    assert len(results) == len(prunable) * len(levels) > 0
    changed = 0
    for unit in prunable:
        with torch.no_grad():
            expected = naive.curve(model, split, unit, SPARSITIES, BATCH)
        for level, wanted in zip(levels, expected, strict=True):
            found = results[Cell(unit, "magnitude", level)].evaluation
            figures = (found.samples, found.correct, found.loss)
            assert figures == (wanted.samples, wanted.correct, wanted.loss), (unit, level)
            assert (found.flips, found.lost, found.gained) == (
                *(wanted.flips, wanted.lost, wanted.gained),
            )
            changed += wanted.loss != engine.baseline().loss
    assert changed > len(prunable)
