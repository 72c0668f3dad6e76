"""Operators that write: into an `out` argument, an input, a weight, or old memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.attacks import kit
from tests.attacks.exported import answering, sound, tensor, written
from tests.unit.engine.archives import call, graph_of
from worker.engine.operators import ALLOWED


@pytest.mark.parametrize(
    "target",
    [
        "add.out", "relu.out", "mm.out", "linear.out", "zeros.out", "cat.out", "sum.IntList_out",
        "index_put.out", "softmax.int_out", "max_pool2d_with_indices.out",
    ],
)  # fmt: skip
def test_into_an_out_argument(tmp_path: Path, canary: kit.Canary, target: str) -> None:
    node = call(
        f"torch.ops.aten.{target}", "evil",
        ("self", tensor("linear_1")), ("other", tensor("linear_1")), ("out", tensor("p_0_weight")),
    )  # fmt: skip
    path = written(tmp_path, sound().changed(lambda record: answering(record, node)))
    kit.refused(kit.read_model(path), target, canary, code="unsupported-operator")


@pytest.mark.parametrize("name", ["out", "output", "self_out", "out0"])
def test_an_out_argument_of_an_allowed_operator(
    tmp_path: Path, canary: kit.Canary, name: str
) -> None:
    """torch picks the overload by the arguments it gets: `add(a, b, out=c)` would be add.out."""
    node = call(
        "torch.ops.aten.add.Tensor", "evil",
        ("self", tensor("linear_1")), ("other", tensor("linear_1")), (name, tensor("linear_1")),
    )  # fmt: skip
    node["inputs"][2]["kind"] = 2
    path = written(tmp_path, sound().changed(lambda record: answering(record, node)))
    kit.refused(kit.read_model(path), "arguments it does not have", canary)


@pytest.mark.parametrize(
    "target",
    [
        "set_.source_Storage", "set_.source_Tensor", "resize_.default", "resize_as_.default",
        "as_strided.default", "as_strided_.default", "as_strided_scatter.default",
        "empty.memory_format", "empty_like.default", "empty_strided.default", "new_empty.default",
        "_reinterpret_tensor.default", "view.dtype", "_unsafe_masked_index.default",
        "set_data.default", "swap_.default", "requires_grad_.default", "retain_grad.default",
        "bernoulli_.float", "uniform_.default", "rand.default", "multinomial.default",
        "_local_scalar_dense.default", "item.default", "nonzero.default", "masked_select.default",
        "max_unpool2d.default", "_unsafe_index.Tensor", "put_.default", "_foreach_add_.List",
        "unsafe_index.Tensor", "_index_put_impl_.default", "_resize_output_.default",
    ],
)  # fmt: skip
def test_old_memory_and_chance(tmp_path: Path, canary: kit.Canary, target: str) -> None:
    """Views with strides of one's own, memory as it was left by others, and random numbers."""
    assert f"torch.ops.aten.{target}" not in ALLOWED
    node = call(f"torch.ops.aten.{target}", "evil", ("self", tensor("linear_1")))
    path = written(tmp_path, sound().changed(lambda record: answering(record, node)))
    kit.refused(kit.read_model(path), "", canary, code="unsupported-operator")


def test_nothing_on_the_list_writes_or_makes_up() -> None:
    """torch's own word for what each operator does."""
    bad = []
    for target in ALLOWED:
        base, _, overload = target.removeprefix("torch.ops.aten.").partition(".")
        operator = getattr(getattr(torch.ops.aten, base), overload)
        schema = operator._schema
        if schema.is_mutable or any(argument.is_out for argument in schema.arguments):
            bad.append(target)
        kinds = {str(argument.type) for argument in schema.arguments}
        if kinds & {"Storage", "Stream", "str[]", "Any"} or "__torch__" in str(schema):
            bad.append(target)
        allowed_strings = {
            "rounding_mode",
            "padding_mode",
            "indexing",
            "mode",
            "reduce",
            "padding",
            "equation",
            "approximate",
            "side",
            "norm",
            "ord",
            "pad_mode",
        }
        strings = {a.name for a in schema.arguments if "str" in str(a.type)}
        if not strings <= allowed_strings:
            bad.append(f"{target} {strings}")
        random = torch.Tag.nondeterministic_seeded in operator.tags
        if random and not any(
            word in base for word in ("dropout", "rrelu", "attention", "lstm", "gru", "rnn")
        ):
            bad.append(target)
    assert bad == []


@pytest.mark.parametrize("victim", ["x", "p_0_weight", "p_0_bias"])
@pytest.mark.parametrize("operator", ["relu_.default", "zero_.default", "copy_.default"])
def test_into_an_input_or_a_weight(
    tmp_path: Path, canary: kit.Canary, victim: str, operator: str
) -> None:
    """Either refused, or the write stays inside: a second run gives what the first gave."""

    def change(record: dict[str, Any]) -> None:
        graph = graph_of(record)
        user = [v["as_tensor"]["name"] for v in graph["inputs"]][-1]
        target = user if victim == "x" else victim
        more = [("src", tensor(target))] if operator.startswith("copy_") else []
        node = call(f"torch.ops.aten.{operator}", "evil", ("self", tensor(target)), *more)
        graph["tensor_values"]["evil"] = graph["tensor_values"][target]
        graph["nodes"].insert(0, node)

    path = written(tmp_path, sound().changed(change))
    outcome = kit.read_model(path)
    kit.harmless(outcome, canary)
    if outcome.error is None:
        stays = kit.run("program", source=STAYS, path=str(path), folder=str(tmp_path))
        assert stays.value is True, stays.raised


STAYS = """
from pathlib import Path
import torch
from worker.engine.formats.models import open_model
model = open_model(Path(path)).model
x = torch.randn(2, 3)
kept, before = x.clone(), {k: v.clone() for k, v in model.state_dict().items()}
with torch.no_grad():
    first, second = model.module(x), model.module(x)
result = torch.equal(x, kept) and torch.equal(first, second) and all(
    torch.equal(v, before[k]) for k, v in model.state_dict().items())
"""


@pytest.mark.parametrize("tag", ["buffer_mutation", "user_input_mutation", "parameter_mutation"])
def test_a_signature_that_says_so(tmp_path: Path, canary: kit.Canary, tag: str) -> None:
    def change(record: dict[str, Any]) -> None:
        graph = graph_of(record)
        spec = {
            tag: {
                "arg": {"name": "linear"},
                "buffer_name": "0.weight",
                "user_input_name": "x",
                "parameter_name": "0.weight",
            }
        }
        record["graph_module"]["signature"]["output_specs"].insert(0, spec)
        graph["outputs"].insert(0, tensor("linear"))

    kit.harmless(kit.read_model(written(tmp_path, sound().changed(change))), canary)
