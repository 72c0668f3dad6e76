"""From an exported file to curves, against the naive loop on the user's own module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from app.domain.levels import to_level
from tests.unit.engine import naive
from tests.unit.engine.architectures import ARCHITECTURES, Architecture
from tests.unit.engine.networks import canonical
from tests.unit.engine.traced import randomise_norms
from worker.engine.sensitivity import Cell, CellResult, SensitivityEngine
from worker.engine.units import weight_units

SPARSITIES = (0.0, 0.4, 0.8, 1.0)
LEVELS = [to_level(s) for s in SPARSITIES]
BATCH = 15


@dataclass
class Eager:
    """The user's module itself, for the naive loop."""

    module: nn.Module
    fixed_batch: int | None = None


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")
@pytest.mark.parametrize("fixed", [False, True], ids=["any batch", "one batch size"])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.name)
def test_curves_of_a_file_are_those_of_the_module_it_came_from(
    architecture: Architecture, fixed: bool, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    module = randomise_norms(architecture.build()).eval()
    split = architecture.split(50)
    model = canonical(module, split.batch(0, BATCH)[0], tmp_path, fixed=fixed)
    units = weight_units(model)
    engine = SensitivityEngine(model, split, units, batch_size=BATCH)
    assert engine.batch_size == BATCH
    results: dict[Cell, CellResult] = {}
    engine.run(engine.cells(LEVELS), lambda result: results.__setitem__(result.cell, result))
    eager = Eager(module, model.fixed_batch)
    prunable = [unit for unit in units if unit.prunable]
    assert prunable
    for unit in prunable:
        curve = naive.curve(eager, split, unit.id, SPARSITIES, BATCH)
        for level, expected in zip(LEVELS, curve, strict=True):
            found = results[Cell(unit.id, "magnitude", level)].evaluation
            assert found.correct == expected.correct, unit.id
            assert (found.flips, found.lost, found.gained) == (
                expected.flips,
                expected.lost,
                expected.gained,
            )
            assert found.loss == expected.loss
