"""One network of the matrix beside its canonical form: what holds, measured."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from app.domain.adaptive import Goal
from app.domain.levels import to_level
from tests.matrix import reference
from tests.matrix.reference import Figures
from tests.matrix.registry import Entry, Made, samples_like
from tests.unit.engine import naive
from tests.unit.engine.traced import split_of
from worker.engine.curves import CurveEngine, Finding
from worker.engine.flow_options import for_analyses
from worker.engine.formats.pt2 import load_model
from worker.engine.formats.splits import Split
from worker.engine.graph import CanonicalModel
from worker.engine.search import GridSearch
from worker.engine.sensitivity import Cell, CellResult, SensitivityEngine
from worker.engine.units import Unit, weight_units

OTHER_SIZES = (1, 5)
SAMPLES, BATCH = 10, 4
SPARSITIES = (0.5, 0.9)
MOST_UNITS, LARGEST_UNIT = 8, 20_000


def export(made: Made, path: Path) -> None:
    """Writes the network to `path` as its user would."""
    shapes: Any = None
    if made.dynamic:
        free = {0: torch.export.Dim.AUTO}
        names = list(inspect.signature(made.module.forward).parameters)
        named = [*names[: len(made.args)], *made.kwargs]
        shapes = dict.fromkeys(named, free)
    with warnings.catch_warnings():
        # torch.export warns of the flat weights of its own recurrent layers.
        warnings.simplefilter("ignore")
        program = torch.export.export(
            made.module, made.args, dict(made.kwargs), dynamic_shapes=shapes
        )
        torch.export.save(program, path)


def answer(made: Made, inputs: Sequence[Tensor], net: nn.Module | None = None) -> Tensor:
    """What the user's own network answers, in the mode it is in.

    torch's transformer layers have a fused path for inference, with other rounding, that exports
    never contain; it is switched off here.
    """
    count = len(made.args)
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        named = dict(zip(made.kwargs, inputs[count:], strict=True))
        output = (net or made.module)(*inputs[:count], **named)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    if isinstance(output, Mapping):
        return output["logits"] if "logits" in output else next(iter(output.values()))
    return output[0] if isinstance(output, tuple) else output


@dataclass(frozen=True)
class Comparison:
    """Cells of the engine and of the naive loop; `changed`: how many differ from the dense run."""

    found: Mapping[Cell, Figures]
    expected: Mapping[Cell, Figures]
    changed: int

    @property
    def equal(self) -> bool:
        return len(self.found) > 0 and self.found == self.expected


class Examined:
    """A network, the canonical form of its export, and what is found out about the two."""

    def __init__(self, entry: Entry, folder: Path) -> None:
        self.entry = entry
        self.made = entry.make()
        path = folder / "m.pt2"
        export(self.made, path)
        self.made.module.eval()
        self.model: CanonicalModel = load_model(path, "pt2")
        self.units: list[Unit] = weight_units(self.model)
        path.unlink()

    def source(self, inputs: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            return answer(self.made, inputs)

    def ours(self, inputs: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            return self.model.module(*inputs)

    @cached_property
    def bit_equal(self) -> dict[int, bool]:
        """By batch size: whether the canonical form answers as the source does, bit for bit."""
        batch = len(self.made.inputs[0])
        sizes = [batch] if self.model.fixed_batch else [batch, *OTHER_SIZES]
        given = {size: self.inputs_of(size) for size in sizes}
        return {
            size: torch.equal(self.ours(inputs), self.source(inputs))
            for size, inputs in given.items()
        }

    def inputs_of(self, size: int) -> tuple[Tensor, ...]:
        """The inputs of the export, or so many others."""
        own = size == len(self.made.inputs[0])
        return self.made.inputs if own else samples_like(self.made.inputs, size, seed=size)

    @cached_property
    def chosen(self) -> list[Unit]:
        """The units whose curves are compared: all of a small network, some of a large one."""
        small = [unit for unit in self.units if unit.prunable and unit.size <= LARGEST_UNIT]
        step = max(1, (len(small) - 1) / (MOST_UNITS - 1))
        places = sorted({round(at * step) for at in range(MOST_UNITS)})
        return [small[at] for at in places if at < len(small)]

    @cached_property
    def exact(self) -> Comparison:
        """The exact analysis beside the naive loop."""
        model, split = self.model, split_for(self, SAMPLES)
        batch = model.fixed_batch or BATCH
        found: dict[Cell, Figures] = {}

        def keep(result: CellResult) -> None:
            found[result.cell] = reference.figures_of(result.evaluation)

        engine = SensitivityEngine(model, split, self.chosen, batch_size=batch, threads=1)
        engine.run(engine.cells([to_level(sparsity) for sparsity in SPARSITIES]), keep)
        expected: dict[Cell, Figures] = {}
        slow = reference.Reference(model, split, batch, self.entry.task)
        for unit in self.chosen:
            weight = naive.parameter(model, unit.id)
            original = weight.detach().clone()
            for sparsity in SPARSITIES:
                with torch.no_grad():
                    weight.copy_(naive.smallest_removed(original, sparsity))
                    expected[Cell(unit.id, "magnitude", to_level(sparsity))] = slow.figures()
                    weight.copy_(original)
        changed = sum(figures.loss != slow.dense.loss for figures in expected.values())
        return Comparison(found, expected, changed)

    @cached_property
    def curves(self) -> dict[Cell, Figures]:
        """The same cells as analyses measure them: along the stream, by the fast flow, to the end.

        Ten samples are one batch of the stream, unless the network has a batch size of its own.
        """
        split = split_for(self, SAMPLES)
        options = for_analyses("float32")
        engine = CurveEngine(self.model, split, self.chosen, threads=1, options=options)
        levels = [to_level(sparsity) for sparsity in SPARSITIES]
        runs = engine.runs_for([(cell, Goal(whole=True)) for cell in engine.cells(levels)])
        found: dict[Cell, Figures] = {}

        def keep(finding: Finding) -> None:
            if finding.whole is not None:
                found[finding.cell] = reference.figures_of(finding.whole)

        engine.measure(GridSearch(runs), keep)
        return found


def split_for(examined: Examined, samples: int) -> Split:
    """Random samples with random labels of the network's task, some positions without one."""
    task, model = examined.entry.task, examined.model
    inputs = samples_like(examined.made.inputs, samples)
    with torch.no_grad():
        shape = tuple(model.module(*examined.made.inputs).shape[1:])
    generator = np.random.default_rng(0)
    if task == "regression":
        labels = generator.standard_normal((samples, *shape)).astype(np.float32)
    elif task == "multi-label":
        labels = generator.integers(0, 2, (samples, *shape))
    elif task == "single-label":
        labels = generator.integers(0, shape[0], samples)
    else:
        # Maps of pixels have their classes right after the batch, words last.
        classes, places = (shape[0], shape[1:]) if len(shape) > 2 else (shape[-1], shape[:-1])
        labels = generator.integers(0, classes, (samples, *places))
        labels[generator.random(labels.shape) < 0.2] = reference.IGNORED
    arrays = [(t.float() if t.is_floating_point() else t).numpy() for t in inputs]
    split = split_of(arrays, labels).cast([tensor.dtype for tensor in inputs])
    kinds = {"regression": "regression", "language-modelling": "language-modelling"}
    return replace(split, task=kinds.get(task, "classification"))
