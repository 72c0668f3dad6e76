"""Small graphs that ask for memory or time without end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.attacks import kit
from tests.attacks.exported import answering, sound, tensor, written
from tests.unit.engine.archives import call, graph_of


def ints(*values: int) -> dict[str, Any]:
    return {"as_ints": list(values)}


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        ("zeros.default", [("size", ints(1 << 20, 1 << 20))]),
        ("ones.default", [("size", ints(1 << 31, 1 << 31, 1 << 31))]),
        ("full.default", [("size", ints(1 << 62)), ("fill_value", {"as_float": 1.0})]),
        ("eye.default", [("n", {"as_int": 1 << 24})]),
        ("arange.default", [("end", {"as_int": 1 << 40})]),
        ("tril_indices.default", [("row", {"as_int": 1 << 20}), ("col", {"as_int": 1 << 20})]),
        ("linspace.default", [("start", {"as_float": 0.0}), ("end", {"as_float": 1.0}),
                              ("steps", {"as_int": 1 << 40})]),
        ("repeat.default", [("self", tensor("linear_1")), ("repeats", ints(1 << 40, 4))]),
        ("tile.default", [("self", tensor("linear_1")), ("dims", ints(1 << 30, 1 << 30))]),
        ("repeat_interleave.self_int", [("self", tensor("linear_1")), ("repeats",
                                                                     {"as_int": 1 << 44})]),
        ("constant_pad_nd.default", [("self", tensor("linear_1")), ("pad", ints(0, 1 << 45))]),
        ("one_hot.default", [("self", tensor("linear_1")), ("num_classes", {"as_int": 1 << 50})]),
        ("diag_embed.default", [("self", tensor("linear_1")), ("offset", {"as_int": 1 << 30})]),
        ("fft_fft.default", [("self", tensor("linear_1")), ("n", {"as_int": 1 << 40})]),
        ("upsample_nearest1d.default", [("self", tensor("linear_1")), ("output_size",
                                                                     ints(1 << 60))]),
    ],
)  # fmt: skip
def test_a_tensor_made_out_of_nothing(
    tmp_path: Path, canary: kit.Canary, operator: str, arguments: list[Any]
) -> None:
    node = call(f"torch.ops.aten.{operator}", "evil", *arguments)
    path = written(tmp_path, sound().changed(lambda record: answering(record, node)))
    kit.refused(kit.read_model(path), "", canary)


def test_numbers_that_double_without_end(tmp_path: Path, canary: kit.Canary) -> None:
    def change(record: dict[str, Any]) -> None:
        nodes = graph_of(record)["nodes"]
        last: dict[str, Any] = {"as_sym_int": {"as_int": 1 << 40}}
        for at in range(60):
            node = call("_operator.mul", f"n{at}", ("", last), ("", last))
            node["outputs"] = [{"as_sym_int": {"as_name": f"n{at}"}}]
            nodes.append(node)
            last = {"as_sym_int": {"as_name": f"n{at}"}}
        add = call(
            "torch.ops.aten.add.Scalar", "evil", ("self", tensor("linear_1")), ("other", last)
        )
        answering(record, add)

    path = written(tmp_path, sound().changed(change))
    kit.refused(kit.read_model(path), "out of range", canary)


def test_tensors_that_double_without_end(tmp_path: Path, canary: kit.Canary) -> None:
    def change(record: dict[str, Any]) -> None:
        nodes = graph_of(record)["nodes"]
        last = "linear_1"
        for at in range(80):
            both = {"as_tensors": [{"name": last}, {"name": last}]}
            last = f"twice_{at}" if at < 79 else "evil"
            nodes.append(call("torch.ops.aten.cat.default", last, ("tensors", both),
                              ("dim", {"as_int": 1})))  # fmt: skip
        answering(record, nodes.pop())

    kit.refused(kit.read_model(written(tmp_path, sound().changed(change))), "GiB", canary)


def test_a_convolution_that_computes_for_hours(tmp_path: Path, canary: kit.Canary) -> None:
    """Every tensor is small, and the sum of the work is 10^14 multiplications."""

    def change(record: dict[str, Any]) -> None:
        nodes = graph_of(record)["nodes"]
        nodes.append(call("torch.ops.aten.ones.default", "a", ("size", ints(4096, 4096))))
        last = "a"
        for at in range(700):
            nodes.append(call("torch.ops.aten.mm.default", f"m{at}", ("self", tensor(last)),
                              ("mat2", tensor("a"))))  # fmt: skip
            last = f"m{at}"
        nodes.append(call("torch.ops.aten.sum.default", "s", ("self", tensor(last))))
        add = call("torch.ops.aten.add.Tensor", "evil", ("self", tensor("linear_1")),
                   ("other", tensor("s")))  # fmt: skip
        answering(record, add)

    path = written(tmp_path, sound().changed(change))
    outcome = kit.read_model(path, seconds=60)
    kit.refused(outcome, "", canary, seconds=60, memory_bytes=kit.GIB)


@pytest.mark.parametrize("rounds", [20_000])
def test_operators_without_number(tmp_path: Path, canary: kit.Canary, rounds: int) -> None:
    """20,000 operators on eight numbers: it may be read or refused, but not for minutes."""

    def change(record: dict[str, Any]) -> None:
        nodes = graph_of(record)["nodes"]
        last = "linear_1"
        for at in range(rounds):
            nodes.append(call("torch.ops.aten.relu.default", f"r{at}", ("self", tensor(last))))
            last = f"r{at}"
        answering(record, call("torch.ops.aten.relu.default", "evil", ("self", tensor(last))))

    path = written(tmp_path, sound().changed(change))
    kit.harmless(kit.read_model(path, seconds=100), canary, seconds=100, memory_bytes=kit.GIB)
