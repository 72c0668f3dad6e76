"""Last step: run it. Shapes, batch sizes and costs are measured, not believed."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from app.domain.errors import InvalidFile
from app.domain.export_lines import export_hint
from worker.engine.canonical.batch import Inputs, any_batch_agrees, widened
from worker.engine.canonical.dry_run import RUN_ERRORS, does_not_run, weigh
from worker.engine.canonical.layout import Layout, layouts
from worker.engine.canonical.module import CanonicalGraph
from worker.engine.cost import Layer, NodeCost, measure
from worker.engine.formats.pt2_schema import ExportedProgramData, Kind, TensorMeta

MAX_INPUT_NUMBERS = 1 << 28
Spec = tuple[str, tuple[int | None, ...], torch.dtype]


@dataclass(frozen=True)
class Checked:
    module: CanonicalGraph
    inputs: tuple[Spec, ...]
    layers: tuple[Layer, ...]
    fixed_batch: int | None


def checked(module: CanonicalGraph, program: ExportedProgramData) -> Checked:
    """The graph for any batch size where possible, with its inputs and layers.

    Where the batch is the second axis of an input or of the output, the graph swaps them. Raises
    InvalidFile when the network does not run on inputs of the shapes it declares.
    """
    threads = torch.get_num_threads()
    # A few samples gain nothing from threads, and wait long for them on a busy machine.
    torch.set_num_threads(1)
    try:
        return _checked(module, program)
    finally:
        torch.set_num_threads(threads)


def _checked(module: CanonicalGraph, program: ExportedProgramData) -> Checked:
    metas = _user_inputs(program)
    names, shapes = [name for name, _ in metas], [meta for _, meta in metas]
    _check_sizes(metas)
    weigh(module, [(meta.sizes, meta.dtype) for meta in shapes])
    ones, costs, output = _first_run(module, metas)
    possible = list(layouts(shapes, output.shape if isinstance(output, Tensor) else ()))
    if not possible:
        raise _no_batch(metas, output)
    free = (_any_batch(module, layout, shapes, ones) for layout in possible)
    best = next((found for found in free if found), None)
    layout, final = best or (possible[0], possible[0].applied(module))
    metas = list(zip(names, layout.metas(shapes), strict=True))
    batch = metas[0][1].sizes[0]
    fixed = None if best else batch
    if final is not module:
        costs, _ = _run(final, _example(layout.metas(shapes), module, batch, ones))
    specs = tuple(
        (
            name,
            (None, *(None if dim.free else dim.size for dim in meta.shape[1:])),
            meta.dtype,
        )
        for name, meta in metas
    )
    return Checked(final, specs, _layers(final, program, costs, batch), fixed)


def _user_inputs(program: ExportedProgramData) -> list[tuple[str, TensorMeta]]:
    metas = []
    for item in program.inputs:
        if item.kind is not Kind.USER:
            continue
        if item.name not in program.graph.tensors:
            raise InvalidFile(
                f"The input {item.name} is not a tensor.",
                "Give the network tensors only, or fix the value before exporting.",
            )
        metas.append((item.name, program.graph.tensors[item.name]))
    if not metas:
        raise InvalidFile("The network takes no input.", export_hint())
    return metas


def _any_batch(
    module: CanonicalGraph, layout: Layout, metas: Sequence[TensorMeta], ones: AbstractSet[int]
) -> tuple[Layout, CanonicalGraph] | None:
    """The graph for any batch size in this layout, if there is one."""
    own = layout.applied(module)
    own.eval()
    first = layout.metas(metas)
    make, batch = _maker(first, module, ones), first[0].sizes[0]
    if all(meta.shape[0].free for meta in first):
        return (layout, own) if any_batch_agrees(own, own, batch, make) else None
    wider = widened(own, batch, make)
    return None if wider is None else (layout, wider)


def _no_batch(metas: Sequence[tuple[str, TensorMeta]], output: Any) -> InvalidFile:
    sizes = {meta.sizes[0] for _, meta in metas}
    if len(sizes) > 1:
        listed = ", ".join(f"{name}: {meta.sizes}" for name, meta in metas)
        return InvalidFile(
            f"The first axis of every input has to be the batch, but the shapes are {listed}.",
            export_hint("Export the network with example inputs of one batch"),
        )
    shape = tuple(output.shape) if isinstance(output, Tensor) else "no tensor"
    return InvalidFile(
        f"For a batch of {sizes.pop()} the network returns {shape}: there is not one answer for "
        "each sample.",
        "Export a network that returns its scores with the batch as the first axis.",
    )


def _check_sizes(metas: Sequence[tuple[str, TensorMeta]]) -> None:
    if any(not meta.shape or meta.sizes[0] < 1 for _, meta in metas):
        listed = ", ".join(f"{name}: {meta.sizes}" for name, meta in metas)
        raise InvalidFile(
            f"The first axis of every input has to be the batch, but the shapes are {listed}.",
            export_hint("Export the network with example inputs of one batch"),
        )
    if any(_numbers(meta.sizes) > MAX_INPUT_NUMBERS for _, meta in metas):
        raise InvalidFile(
            "The network was exported with an example input that is far too large.",
            export_hint("Export it with an example of two samples"),
        )


def _numbers(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product


def _maker(metas: Sequence[TensorMeta], module: CanonicalGraph, ones: AbstractSet[int]) -> Inputs:
    return lambda samples: _example(metas, module, samples, ones)


def _example(
    metas: Sequence[TensorMeta],
    module: CanonicalGraph,
    samples: int | None,
    ones: AbstractSet[int],
) -> list[Tensor]:
    """Random inputs of so many samples, None: as many as the example at export had.

    Whole numbers are indices that every embedding has; the inputs at the places `ones` are ones.
    """
    rows = [m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)]
    limit = max(min([*rows, 1000]), 1) if rows else 2
    generator = torch.Generator().manual_seed(0)
    made = []
    for at, meta in enumerate(metas):
        shape = meta.sizes if samples is None else (samples, *meta.sizes[1:])
        if meta.dtype.is_floating_point:
            made.append(torch.randn(shape, generator=generator).to(meta.dtype))
        elif meta.dtype is torch.bool or at in ones:
            made.append(torch.ones(shape, dtype=meta.dtype))
        elif meta.dtype.is_complex:
            made.append(torch.randn(shape, generator=generator, dtype=meta.dtype))
        else:
            made.append(torch.randint(0, limit, shape, generator=generator).to(meta.dtype))
    return made


def _first_run(
    module: CanonicalGraph, metas: Sequence[tuple[str, TensorMeta]]
) -> tuple[AbstractSet[int], dict[fx.Node, NodeCost], Any]:
    """Costs and output of a first run, and which of the inputs it was given as ones.

    Whole numbers may be indices or a mask: some networks add up their masks to find the places of
    words, and have no such place for a mask of large numbers.
    """
    shapes = [meta for _, meta in metas]
    masks = frozenset(at for at, (name, _) in enumerate(metas) if "mask" in name)
    failed: InvalidFile | None = None
    for ones in dict.fromkeys([frozenset[int](), masks, frozenset(range(len(metas)))]):
        try:
            return ones, *_run(module, _example(shapes, module, None, ones))
        except InvalidFile as error:
            failed = failed or error
    assert failed is not None
    raise failed


def _run(module: CanonicalGraph, inputs: Sequence[Tensor]) -> tuple[dict[fx.Node, NodeCost], Any]:
    try:
        return measure(module, inputs)
    except RUN_ERRORS as error:
        raise does_not_run(error) from error


def _layers(
    module: CanonicalGraph,
    program: ExportedProgramData,
    costs: dict[fx.Node, NodeCost],
    batch: int,
) -> tuple[Layer, ...]:
    """One row for each owner of parameters and each place that multiplies, in execution order."""
    parameters: dict[str, int] = {}
    seen: set[int] = set()
    for key, tensor in program.state.items():
        if key in program.parameters:
            path = key.rpartition(".")[0]
            own = 0 if id(tensor) in seen else tensor.numel()
            parameters[path] = parameters.get(path, 0) + own
            seen.add(id(tensor))
    types: dict[str, str] = {
        frame.path: frame.type for node in program.graph.nodes for frame in node.stack
    }
    owners = _owners(module)
    macs: dict[str, int] = {}
    shapes: dict[str, tuple[int | None, ...]] = {}
    for node in module.graph.nodes:
        if node.op in ("placeholder", "output", "get_attr") or node not in costs:
            continue
        path = owners[node]
        cost = costs[node]
        macs[path] = macs.get(path, 0) + cost.macs
        picked = node.target is operator.getitem and path in shapes
        if cost.shape is not None and not picked:
            shapes[path] = tuple(
                None if at == 0 and size == batch else size for at, size in enumerate(cost.shape)
            )
    order = [p for p in macs if macs[p] or p in parameters]
    order += [p for p in parameters if p not in macs]
    return tuple(
        Layer(
            path,
            types.get(path) or _class_name(module, path),
            parameters.get(path, 0),
            macs.get(path, 0) // batch,
            shapes.get(path, ()),
        )
        for path in order
    )


def _owners(module: CanonicalGraph) -> dict[fx.Node, str]:
    """The path each node counts for.

    That of its module; or of the owner of a stored tensor that it takes, however transposed or
    normalised on the way; or that of the module in which it was called.
    """
    owners: dict[fx.Node, str] = {}
    stored: dict[fx.Node, str] = {}
    for node in module.graph.nodes:
        here = str(node.meta.get("path", ""))
        if node.op == "get_attr":
            stored[node] = str(node.target).rpartition(".")[0]
        elif node.op == "call_module":
            owners[node] = str(node.target)
        else:
            found = [stored[source] for source in node.all_input_nodes if source in stored]
            owners[node] = here if here in found or not found else found[0]
            if found and len(found) == len(node.all_input_nodes):
                stored[node] = owners[node]
    return owners


def _class_name(module: CanonicalGraph, path: str) -> str:
    name = type(module.get_submodule(path)).__name__
    return "Module" if path == "" else name
