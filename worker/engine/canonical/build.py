"""Third step: operator calls become graph nodes, with modules where a recipe finds one."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import fx

from app.domain.errors import UnsupportedOperator
from worker.engine.canonical import recurrent_recipes as recurrent_recipes  # registers itself
from worker.engine.canonical.calls import Call, arguments, bind
from worker.engine.canonical.flatten import flatten, output_names, refs, without_dead_code
from worker.engine.canonical.inplace import without_writes
from worker.engine.canonical.module import CanonicalGraph
from worker.engine.canonical.recipes import RECIPES, Recipe
from worker.engine.canonical.recurrence import CHECKED
from worker.engine.canonical.tree import ModuleTree, split
from worker.engine.canonical.zeros import all_zeros
from worker.engine.formats.pt2_json import malformed
from worker.engine.formats.pt2_schema import ExportedProgramData, Kind, NodeData, Ref
from worker.engine.operators import functional_twin, resolve

Places = tuple[tuple[int, ...], ...] | None


def build_graph(program: ExportedProgramData) -> tuple[CanonicalGraph, ModuleTree]:
    """The canonical graph, in evaluation mode, with exactly the batch sizes of the file.

    Raises UnsupportedOperator for anything that is not on the allow-list, InvalidFile for a graph
    that contradicts itself.
    """
    flat = flatten(program.graph)
    for node in flat.nodes:
        _check_allowed(node)
    data = without_writes(flat, program.inputs)
    data = replace(data, outputs=(data.outputs[program.output],))
    builder = _Builder(program, without_dead_code(data))
    return builder.run(), builder.tree


def _check_allowed(node: NodeData) -> None:
    twin = functional_twin(node.target)
    if twin is None:
        resolve(node.target, node.path)
    elif not any(n.endswith("num_batches_tracked") for a in node.inputs for n in refs(a.value)):
        try:
            resolve(twin, node.path)
        except UnsupportedOperator:
            # Name the operator as the network does, not its twin.
            resolve(node.target, node.path)


class _Builder:
    def __init__(self, program: ExportedProgramData, data: Any) -> None:
        self.program = program
        self.data = data
        self.tree = ModuleTree(program)
        self.graph = fx.Graph()
        self.env: dict[str, fx.Node] = {}
        self.stored: dict[str, fx.Node] = {}
        self.keys = {i.name: i.key for i in program.inputs if i.kind is not Kind.USER}
        self.zeros = all_zeros(data.nodes)
        self.used = {name for value in data.outputs for name in refs(value)} | {
            name for node in data.nodes for a in node.inputs for name in refs(a.value)
        }

    def run(self) -> CanonicalGraph:
        for item in self.program.inputs:
            if item.kind is Kind.USER:
                self.env[item.name] = self.graph.placeholder(item.name)
        for node in self.data.nodes:
            self.emit(node)
        self.graph.output(self.resolve(self.data.outputs[0]))
        constants = {
            key: self.program.constants[key] for key in self.stored if key not in self.program.state
        }
        module = CanonicalGraph(self.tree.build(constants), self.graph)
        # States of zeros that a recurrent layer makes itself are made nowhere else.
        module.graph.eliminate_dead_code()
        module.recompile()
        module.eval()
        return module

    def resolve(self, value: Any) -> Any:
        """Refs as graph nodes."""
        if isinstance(value, Ref):
            return self.node_of(value.name)
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if isinstance(value, tuple):
            return tuple(self.resolve(item) for item in value)
        return value

    def node_of(self, name: str) -> fx.Node:
        if name in self.env:
            return self.env[name]
        if name not in self.keys:
            raise malformed(f"the value {name[:80]} is used before it is made")
        key = self.keys[name]
        key = self.tree.aliases.get(key, (key,))[0]
        if key not in self.stored:
            self.stored[key] = self.graph.create_node("get_attr", key)
            self.stored[key].meta["path"] = split(key)[0]
        return self.stored[key]

    def emit(self, node: NodeData) -> None:
        for name in output_names(node):
            if name in self.env or name in self.keys:
                raise malformed(f"two values are named {name[:80]}")
        function = resolve(node.target, node.path)
        call = bind(node, function, self.keys, self.data.tensors, self.zeros)
        made, outputs = self.as_module(call) or (self.as_function(call), None)
        made.meta["path"] = made.target if made.op == "call_module" else node.path
        made.meta["type"] = node.stack[-1].type if node.stack else ""
        self.name_outputs(node, made, outputs)

    def as_module(self, call: Call) -> tuple[fx.Node, Places] | None:
        make = RECIPES.get(call.operator)
        if make is None:
            return None
        try:
            recipe = make(call)
            others = list(output_names(call.node))[1:]
            if recipe is None or (
                recipe.outputs is None and any(name in self.used for name in others)
            ):
                return None
            path = self.place(recipe, call)
        except (TypeError, ValueError, IndexError, ArithmeticError, RuntimeError):
            # Settings that no module takes (a size that is computed, a probability of 5): the
            # operator itself decides, when it runs, whether it does.
            return None
        if path is None:
            return None
        named = {name: self.resolve(value) for name, value in recipe.named_inputs.items()}
        inputs = tuple(self.resolve(value) for value in recipe.inputs)
        return self.graph.create_node("call_module", path, inputs, named), recipe.outputs

    def place(self, recipe: Recipe, call: Call) -> str | None:
        keys = {role: call.key(argument) or "" for role, argument in recipe.roles.items()}
        kind = call.node.stack[-1].type if call.node.stack else ""
        return self.tree.place(recipe, keys, call.node.path, kind)

    def as_function(self, call: Call) -> fx.Node:
        positional, keyword = arguments(_in_evaluation(call))
        return self.graph.call_function(
            CHECKED.get(call.operator, call.function),
            tuple(self.resolve(value) for value in positional),
            {name: self.resolve(value) for name, value in keyword.items()},
        )

    def name_outputs(self, node: NodeData, made: fx.Node, places: Places) -> None:
        outputs = node.outputs
        if places is not None:
            for place, name in zip(places, output_names(node), strict=True):
                self.pick(made, place, name)
        elif len(outputs) == 1 and isinstance(outputs[0], str):
            self.env[outputs[0]] = made
        elif made.op == "call_module":
            self.env[next(output_names(node))] = made
        elif len(outputs) == 1 and isinstance(outputs[0], list):
            for at, name in enumerate(outputs[0]):
                self.pick(made, (at,), name)
        else:
            if any(isinstance(output, list) for output in outputs):
                raise malformed(f"{node.target[:80]} returns lists beside tensors")
            for at, name in enumerate(outputs):
                if isinstance(name, str):
                    self.pick(made, (at,), name)

    def pick(self, made: fx.Node, place: tuple[int, ...], name: str) -> None:
        if name not in self.used:
            return
        picked = made
        for index in place:
            picked = self.graph.call_function(operator.getitem, (picked, index))
            picked.meta.update(made.meta)
        self.env[name] = picked


_TRAINING_FLAGS: Mapping[str, str] = {
    "batch_norm.default": "training",
    "instance_norm.default": "use_input_stats",
    "lstm.input": "train",
    "gru.input": "train",
    "rnn_tanh.input": "train",
    "rnn_relu.input": "train",
}


def _in_evaluation(call: Call) -> Call:
    """A functional call as evaluation mode makes it, even if the file was exported in training.

    Norms without running statistics always use those of the batch.
    """
    flag = _TRAINING_FLAGS.get(call.operator)
    if flag is None or call[flag] is not True:
        return call
    if "norm" in call.operator and call["running_mean"] is None:
        return call
    return replace(call, given={**call.given, flag: False})
