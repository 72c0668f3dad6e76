"""One network of the matrix beside its canonical form: what holds, measured."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from app.domain.levels import to_level
from tests.matrix.registry import Entry, Made, samples_like
from tests.unit.engine import naive
from tests.unit.engine.traced import split_of
from worker.engine.canonical.module import CanonicalGraph
from worker.engine.formats.pt2 import load_model
from worker.engine.formats.splits import Split
from worker.engine.graph import CanonicalModel
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

    found: Mapping[Cell, tuple[Any, ...]]
    expected: Mapping[Cell, tuple[Any, ...]]
    changed: int

    @property
    def equal(self) -> bool:
        return self.found == self.expected and len(self.found) > 0


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
        model, split = with_scores(self)
        batch = model.fixed_batch or BATCH
        found: dict[Cell, tuple[Any, ...]] = {}

        def keep(result: CellResult) -> None:
            found[result.cell] = _figures(result.evaluation)

        engine = SensitivityEngine(model, split, self.chosen, batch_size=batch, threads=1)
        engine.run(engine.cells([to_level(sparsity) for sparsity in SPARSITIES]), keep)
        expected: dict[Cell, tuple[Any, ...]] = {}
        changed = 0
        with torch.no_grad():
            _, losses, dense = naive.predict(model, split, batch)
            for unit in self.chosen:
                weight = naive.parameter(model, unit.id)
                original = weight.detach().clone()
                for sparsity in SPARSITIES:
                    weight.copy_(naive.smallest_removed(original, sparsity))
                    figures = naive.figures(model, split, batch, dense)
                    expected[Cell(unit.id, "magnitude", to_level(sparsity))] = _figures(figures)
                    changed += not np.isclose(figures.loss or 0, np.mean(losses), 1e-12, 0)
                weight.copy_(original)
        return Comparison(found, expected, changed)


def _figures(figures: Any) -> tuple[Any, ...]:
    names = ("samples", "correct", "loss", "flips", "lost", "gained")
    return tuple(getattr(figures, name) for name in names)


def with_scores(examined: Examined) -> tuple[CanonicalModel, Split]:
    """The network with every number that it answers as the score of a class, and random classes.

    Numbers come with both signs, so that one number makes two classes.
    """
    model = examined.model
    if examined.entry.task != "single-label":
        graph = fx.Graph()
        renamed: dict[fx.Node, fx.Node] = {}
        for node in model.module.graph.nodes:
            if node.op != "output":
                renamed[node] = graph.node_copy(node, lambda n: renamed[n])
                continue
            aten = torch.ops.aten
            flat = graph.call_function(aten.flatten.using_ints, (renamed[node.args[0]], 1))
            both = [flat, graph.call_function(aten.neg.default, (flat,))]
            graph.output(graph.call_function(aten.cat.default, (both, 1)))
        module = CanonicalGraph(model.module, graph)
        keys = tuple(model.state_dict())
        model = CanonicalModel(module, model.inputs, model.layers, model.fixed_batch, keys)
    inputs = samples_like(examined.made.inputs, SAMPLES)
    batch = model.fixed_batch or 2
    with torch.no_grad():
        classes = model.module(*[tensor[:batch] for tensor in inputs]).shape[1]
    labels = np.random.default_rng(0).integers(0, classes, SAMPLES)
    arrays = [
        tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
        for tensor in inputs
    ]
    return model, split_of(arrays, labels).cast([tensor.dtype for tensor in inputs])
