"""Higher-order operators run graphs of their own, on compilers of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.attacks import kit
from tests.attacks.exported import answering, sound, tensor, written
from tests.unit.engine.archives import call, graph_of

NAMES = [
    *("cond", "while_loop", "scan", "map_impl", "associative_scan", "flex_attention"),
    *("triton_kernel_wrapper_mutation", "triton_kernel_wrapper_functional", "call_torchbind"),
    *("aoti_call_delegate", "inductor_compiled_code", "invoke_subgraph", "print", "inline_asm"),
    *("run_with_rng_state", "auto_functionalized_v2", "with_effects", "foreach_map", "py_call"),
    *("executorch_call_delegate", "strict_mode", "hints_wrapper", "invoke_leaf_function"),
]


def inner_graph(record: dict[str, Any], nodes: list[Any], answer: str) -> dict[str, Any]:
    meta = graph_of(record)["tensor_values"]["linear_1"]
    graph = {
        "inputs": [tensor("y")],
        "outputs": [tensor(answer)],
        "nodes": nodes,
        "tensor_values": {"y": meta, answer: meta},
        "sym_int_values": {}, "sym_bool_values": {}, "is_single_tensor_return": False,
    }  # fmt: skip
    return {"as_graph": {"name": "inner", "graph": graph}}


@pytest.mark.parametrize("name", NAMES)
def test_they_are_refused_by_name(tmp_path: Path, canary: kit.Canary, name: str) -> None:
    def change(record: dict[str, Any]) -> None:
        inner = inner_graph(record, [], "y")
        target = f"torch.ops.higher_order.{name}"
        answering(record, call(target, "evil", ("", inner), ("", inner), ("", tensor("linear_1"))))

    path = written(tmp_path, sound().changed(change))
    kit.refused(kit.read_model(path), f"higher_order.{name}", canary, code="unsupported-operator")


def test_a_compiled_part(tmp_path: Path, canary: kit.Canary) -> None:
    """The path of a library, to be loaded, as an operator's argument."""
    node = call(
        "torch.ops.higher_order.aoti_call_delegate",
        "evil",
        ("", {"as_string": "/tmp/evil.so"}),
        ("", tensor("linear_1")),
    )
    path = written(tmp_path, sound().changed(lambda record: answering(record, node)))
    kit.refused(kit.read_model(path), "aoti_call_delegate", canary, code="unsupported-operator")


@pytest.mark.parametrize("argument", [
    {"as_operator": "os.system"},
    {"as_custom_obj": {"name": "x", "class_fqn": "__torch__.torch.classes.evil.Evil"}},
])  # fmt: skip
def test_an_argument_that_is_a_function_or_an_object(
    tmp_path: Path, canary: kit.Canary, argument: dict[str, Any]
) -> None:
    node = call("torch.ops.aten.relu.default", "evil", ("self", argument))
    path = written(tmp_path, sound().changed(lambda record: answering(record, node)))
    kit.refused(kit.read_model(path), "custom object", canary, code="unsafe-file")


@pytest.mark.parametrize("depth", [5, 20, 60])
def test_graphs_within_graphs(tmp_path: Path, canary: kit.Canary, depth: int) -> None:
    """Those that only switch gradients off are inlined, but not without end."""

    def change(record: dict[str, Any]) -> None:
        nodes: list[Any] = []
        for _ in range(depth):
            inner = inner_graph(record, nodes, "evil" if nodes else "y")
            nodes = [
                call(
                    "torch.ops.higher_order.wrap_with_set_grad_enabled",
                    "evil",
                    ("", {"as_bool": False}),
                    ("", inner),
                    ("", tensor("y")),
                )
            ]
        nodes[0]["inputs"][2]["arg"] = tensor("linear_1")
        answering(record, nodes[0])

    path = written(tmp_path, sound().changed(change))
    outcome = kit.read_model(path)
    kit.harmless(outcome, canary)
    if depth > 6:
        assert "nested too deeply" in kit.refused(outcome)


def test_one_graph_many_times_over(tmp_path: Path, canary: kit.Canary) -> None:
    """A graph of two copies of a graph of two copies: 2^n operators in a file of n lines, were it
    not that JSON knows no references. Its size is the graph's size."""

    def doubled(record: dict[str, Any], depth: int) -> list[Any]:
        if depth == 0:
            return [call("torch.ops.aten.relu.default", "evil", ("self", tensor("y")))]
        inner = inner_graph(record, doubled(record, depth - 1), "evil")
        wrap = "torch.ops.higher_order.wrap_with_set_grad_enabled"
        off = ("", {"as_bool": False})
        first = call(wrap, "half", off, ("", inner), ("", tensor("y")))
        return [first, call(wrap, "evil", off, ("", inner), ("", tensor("half")))]

    def change(record: dict[str, Any]) -> None:
        graph = graph_of(record)
        for node in doubled(record, 6):
            for item in node["inputs"]:
                if item["arg"] == tensor("y"):
                    item["arg"] = tensor("linear_1")
            graph["nodes"].append(node)
        answering(record, graph["nodes"].pop())

    path = written(tmp_path, sound().changed(change))
    kit.harmless(kit.read_model(path), canary)
