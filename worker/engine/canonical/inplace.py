"""Second step: no operator writes in place any more.

`relu_`, `add_` and assignments to slices would corrupt activations that are kept for reuse. Each
becomes its functional twin, and later readers read the new value, through views as well: a view of
a changed tensor is taken again, a tensor whose view was changed is put together again. Where it
can't be known whether two values share memory (reshape may copy), the network is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from app.domain.errors import UnsupportedOperator
from worker.engine.canonical.flatten import output_names, refs
from worker.engine.formats.pt2_schema import (
    Argument,
    GraphData,
    GraphInput,
    Kind,
    NodeData,
    Ref,
    TensorMeta,
)
from worker.engine.operators import functional_twin, resolve

_ATEN = "torch.ops.aten."


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VIEWS = _names(
    "view.default unsqueeze.default squeeze.default squeeze.dim squeeze.dims slice.Tensor "
    "select.int permute.default transpose.int t.default detach.default alias.default "
    "expand.default unbind.int split.Tensor split_with_sizes.default split.sizes chunk.default "
    "unfold.default diagonal.default narrow.default movedim.int movedim.intlist "
    "swapaxes.default mT.default numpy_T.default"
)
_MAYBE_VIEWS = _names(
    "reshape.default reshape_as.default view_as.default flatten.using_ints unflatten.int "
    "contiguous.default to.dtype to.dtype_layout to.device to.other type_as.default "
    "expand_as.default broadcast_to.default dropout.default feature_dropout.default "
    "alpha_dropout.default feature_alpha_dropout.default atleast_1d.default atleast_2d.default "
    "broadcast_tensors.default meshgrid.default meshgrid.indexing atleast_3d.default "
    "ravel.default swapdims.default moveaxis.int moveaxis.intlist adjoint.default mH.default "
    "matrix_H.default hsplit.int vsplit.int dsplit.int tensor_split.sections "
    "tensor_split.indices unsafe_chunk.default unsafe_split.Tensor "
    "unsafe_split_with_sizes.default _unsafe_view.default view_as_complex.default "
    "view_as_real.default real.default imag.default conj.default _conj.default "
    "resolve_conj.default resolve_neg.default diag.default"
)
_SAME_SHAPE_AGAIN = _names(
    "view.default unsqueeze.default squeeze.default squeeze.dim squeeze.dims"
)
_SHAPE_ONLY = frozenset(["squeeze_", "unsqueeze_", "transpose_", "t_", "detach_"])


@dataclass(frozen=True)
class _View:
    """`name` was made from `parent` by `node` (output number `index`); `sure`: it is a view."""

    parent: str
    node: NodeData
    index: int
    sure: bool


def without_writes(graph: GraphData, inputs: tuple[GraphInput, ...]) -> GraphData:
    """The same computation with functional operators only.

    Batch counters of norms that were exported in training mode are dropped. Raises
    UnsupportedOperator for a write to a parameter or buffer, or through memory that may be shared.
    """
    if not any(functional_twin(node.target) for node in graph.nodes):
        return graph
    return _Rewriter(graph, inputs).run()


class _Rewriter:
    def __init__(self, graph: GraphData, inputs: tuple[GraphInput, ...]) -> None:
        self.graph = graph
        self.stored = {i.name: i for i in inputs if i.kind is not Kind.USER}
        self.tensors: dict[str, TensorMeta] = dict(graph.tensors)
        self.out: list[NodeData] = []
        self.value: dict[str, str] = {}
        self.views: dict[str, _View] = {}
        self.children: dict[str, list[str]] = {}
        self.same: dict[str, str] = {}
        self.stale: set[str] = set()
        self.lost: dict[str, str] = {}
        self.fresh = 0

    def run(self) -> GraphData:
        for node in self.graph.nodes:
            twin = functional_twin(node.target)
            if twin is None:
                self.out.append(self.reading(node))
                self.note_views(node)
            else:
                self.write(node, twin)
        outputs = tuple(self.read_all(value) for value in self.graph.outputs)
        return GraphData(self.graph.inputs, outputs, tuple(self.out), self.tensors)

    def reading(self, node: NodeData) -> NodeData:
        return replace(
            node,
            inputs=tuple(replace(a, value=self.read_all(a.value)) for a in node.inputs),
        )

    def read_all(self, value: Any) -> Any:
        if isinstance(value, Ref):
            return Ref(self.read(value.name))
        if isinstance(value, list):
            return [self.read_all(item) for item in value]
        return value

    def read(self, name: str) -> str:
        """The name under which the present content of `name` is found."""
        name = self.same.get(name, name)
        if name in self.lost:
            raise UnsupportedOperator(self.lost[name], "Use the operator without the underscore.")
        if name in self.stale:
            view = self.views[name]
            parent = self.read(view.parent)
            again = self.new_names(view.node)
            inputs = (replace(view.node.inputs[0], value=Ref(parent)), *view.node.inputs[1:])
            rest = tuple(replace(a, value=self.read_all(a.value)) for a in inputs[1:])
            self.out.append(replace(view.node, inputs=(inputs[0], *rest), outputs=again))
            self.value[name] = _nth(again, view.index)
            self.stale.discard(name)
        return self.value.get(name, name)

    def new_names(self, node: NodeData) -> tuple[str | list[str] | None, ...]:
        self.fresh += 1

        def fresh(name: str) -> str:
            again = f"{name}__{self.fresh}"
            if name in self.tensors:
                self.tensors[again] = self.tensors[name]
            return again

        return tuple(
            [fresh(n) for n in o] if isinstance(o, list) else None if o is None else fresh(o)
            for o in node.outputs
        )

    def note_views(self, node: NodeData) -> None:
        short = node.target.removeprefix(_ATEN)
        if (short not in _VIEWS and short not in _MAYBE_VIEWS) or not node.inputs:
            return
        source = node.inputs[0].value
        if isinstance(source, Ref):
            parent = self.same.get(source.name, source.name)
            for index, name in enumerate(output_names(node)):
                self.views[name] = _View(parent, node, index, short in _VIEWS)
                self.children.setdefault(parent, []).append(name)

    def write(self, node: NodeData, twin: str) -> None:
        first = node.inputs[0].value if node.inputs else None
        if not isinstance(first, Ref):
            raise self.refusal(node, "what it writes to can't be told")
        name = self.same.get(first.name, first.name)
        root = self.root(name)
        if root in self.stored:
            key = self.stored[root].key
            if key.endswith("num_batches_tracked"):
                for result in output_names(node):
                    self.same[result] = name
                return
            if self.stored[root].kind is not Kind.CONSTANT:
                raise self.refusal(node, f"it changes {key} of the network")
        result = next(output_names(node), None)
        if result is None:
            raise self.refusal(node, "it has no result")
        written = replace(self.reading(node), target=twin)
        written = replace(written, inputs=_renamed(written.inputs, twin, node.path))
        if node.target.startswith(f"{_ATEN}copy_."):
            # What is written takes the shape of what is written to, and nothing else of it.
            target, source = (argument.value for argument in written.inputs[:2])
            swapped = (Argument("self", source, False), Argument("other", target, False))
            written = replace(written, inputs=swapped)
        self.out.append(written)
        self.value[name] = self.cast_back(node, name, result)
        self.same[result] = name
        if node.target.removeprefix(_ATEN).partition(".")[0] not in _SHAPE_ONLY:
            self.spread(name, node)
        elif name in self.views or name in self.children:
            # The object changes its shape, not its content: its views can't be put together again.
            self.views.pop(name, None)
            reason = self.refusal(node, "other values share its memory").message
            for child in self.children.pop(name, []):
                self.lose(child, {name}, reason, upwards=False)

    def cast_back(self, node: NodeData, name: str, result: str) -> str:
        """A write keeps the number type of what is written to; the twin may promote it."""
        meta = self.tensors.get(name)
        others = [self.tensors.get(ref) for a in node.inputs[1:] for ref in refs(a.value)]
        if meta is None or all(o is None or o.dtype == meta.dtype for o in others):
            return result
        self.fresh += 1
        again = f"{result}__{self.fresh}"
        self.tensors[again] = meta
        given = (Argument("self", Ref(result), False), Argument("dtype", meta.dtype, False))
        self.out.append(NodeData(_ATEN + "to.dtype", given, (again,), node.stack))
        return again

    def spread(self, name: str, node: NodeData) -> None:
        """The rest of the family of views learns of a write to `name`."""
        chain = {name}
        child = name
        self.age(name, chain, node)
        while child in self.views:
            view = self.views[child]
            parent = view.parent
            if not view.sure or not self.put_back(view, parent, child):
                reason = self.refusal(
                    node, "it may change another value that shares its memory"
                ).message
                self.lose(parent, chain, reason)
                return
            chain.add(parent)
            self.age(parent, chain, node)
            child = parent

    def age(self, name: str, chain: set[str], node: NodeData) -> None:
        """Views taken from `name` before the write have to be taken again."""
        for child in self.children.get(name, ()):
            if child in chain:
                continue
            if self.views[child].sure:
                self.stale.add(child)
                self.age(child, chain, node)
            else:
                reason = self.refusal(
                    node, "it may change another value that shares its memory"
                ).message
                self.lose(child, chain, reason, upwards=False)

    def lose(self, name: str, chain: set[str], reason: str, *, upwards: bool = True) -> None:
        """From here on, reading `name` or anything that may share its memory is refused."""
        if name in chain or name in self.lost:
            return
        self.lost[name] = reason
        for child in self.children.get(name, ()):
            self.lose(child, chain, reason, upwards=False)
        if upwards and name in self.views:
            self.lose(self.views[name].parent, chain, reason)

    def put_back(self, view: _View, parent: str, child: str) -> bool:
        """`parent` with the new content of its view `child`. False: there is no way."""
        short = view.node.target.removeprefix(_ATEN)
        old, new = self.read(parent), Ref(self.value[child])
        rest = {a.name: self.read_all(a.value) for a in view.node.inputs[1:]}
        if short in _SAME_SHAPE_AGAIN:
            return self.emit(parent, "reshape_as.default", [("self", new), ("other", Ref(old))])
        if short in ("slice.Tensor", "select.int"):
            scatter = short.partition(".")[0] + "_scatter.default"
            given = [("self", Ref(old)), ("src", new), *rest.items()]
            return self.emit(parent, scatter, given)
        if short == "unbind.int":
            given = [("dim", rest.get("dim", 0)), ("index", view.index)]
            given = [("self", Ref(old)), ("src", new), *given]
            return self.emit(parent, "select_scatter.default", given)
        if short in ("transpose.int", "t.default", "detach.default", "alias.default"):
            return self.emit(parent, short, [("self", new), *rest.items()])
        if short == "permute.default" and all(type(d) is int for d in rest["dims"]):
            dims = [d % len(rest["dims"]) for d in rest["dims"]]
            back = [dims.index(at) for at in range(len(dims))]
            return self.emit(parent, short, [("self", new), ("dims", back)])
        return False

    def emit(self, parent: str, short: str, given: list[tuple[str, Any]]) -> bool:
        self.fresh += 1
        name = f"{parent}__{self.fresh}"
        if parent in self.tensors:
            self.tensors[name] = self.tensors[parent]
        arguments = tuple(Argument(n, v, False) for n, v in given)
        stack = self.out[-1].stack if self.out else ()
        self.out.append(NodeData(_ATEN + short, arguments, (name,), stack))
        self.value[parent] = name
        self.stale.discard(parent)
        return True

    def root(self, name: str) -> str:
        while name in self.views:
            name = self.views[name].parent
        return name

    @staticmethod
    def refusal(node: NodeData, why: str) -> UnsupportedOperator:
        where = f"the layer {node.path}" if node.path else "the network's own forward function"
        return UnsupportedOperator(
            f"The operator {node.target.removeprefix('torch.ops.')[:120]} in {where} writes in "
            f"place, and {why}.",
            "Use the operator without the underscore (x = x + y instead of x += y, inplace=False) "
            "and export again.",
        )


def _renamed(inputs: tuple[Argument, ...], twin: str, path: str) -> tuple[Argument, ...]:
    """What is written to, under the name it has in the twin: `dropout_` calls it otherwise."""
    function = resolve(twin, path)
    if not isinstance(function, torch._ops.OpOverload) or not function._schema.arguments:
        return inputs
    return (replace(inputs[0], name=function._schema.arguments[0].name), *inputs[1:])


def _nth(outputs: tuple[str | list[str] | None, ...], index: int) -> str:
    names = [n for o in outputs for n in (o if isinstance(o, list) else [o]) if n is not None]
    return names[index]
