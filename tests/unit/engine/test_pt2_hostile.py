"""Archives that lie, overreach or try to run something: each is refused with a sentence."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

from app.domain.errors import InvalidFile, UnsafeFile, UnsupportedOperator
from tests.unit.engine.archives import (
    CONSTANTS,
    MODEL,
    WEIGHTS,
    Bomb,
    call,
    changed,
    entries_of,
    graph_of,
    pack,
    refusal,
    small,
)
from tests.unit.engine.exports import export
from worker.engine.formats.pt2 import load_model

# --- what would run code -----------------------------------------------------------------------


@pytest.mark.parametrize("where", [WEIGHTS, CONSTANTS])
def test_pickled_tensors(tmp_path: Path, where: str) -> None:
    def change(record: dict[str, Any]) -> None:
        meta = {"path_name": "weight_0", "is_param": True, "use_pickle": True, "tensor_meta": None}
        record["config"]["0.weight"] = meta

    message = refusal(changed(tmp_path, change, where), UnsafeFile)
    assert "0.weight is stored as a pickle" in message


def test_compiled_code(tmp_path: Path) -> None:
    entries = entries_of(small(tmp_path))
    entries["m/data/aotinductor/model/x.so"] = b"\x7fELF"
    assert "compiled code" in refusal(pack(tmp_path / "a.pt2", entries), UnsafeFile)


def test_weights_in_the_older_pickled_form(tmp_path: Path) -> None:
    entries = entries_of(small(tmp_path))
    del entries[WEIGHTS]
    path = tmp_path / "a.pt2"
    entries["m/data/weights/model.pt"] = b"\x80\x02."
    assert "cut short" in refusal(pack(path, entries))
    marker = tmp_path / "ran"
    buffer = io.BytesIO()
    torch.save({"0.weight": Bomb(marker)}, buffer)
    entries["m/data/weights/model.pt"] = buffer.getvalue()
    assert "asks for" in refusal(pack(path, entries), UnsafeFile)
    assert not marker.exists()


def test_sample_inputs_are_never_opened(tmp_path: Path) -> None:
    entries = entries_of(small(tmp_path))
    marker = tmp_path / "ran"
    entries["m/data/sample_inputs/model.pt"] = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    load_model(pack(tmp_path / "a.pt2", entries), "pt2")
    assert not marker.exists()


def test_an_expression_as_a_size_is_not_evaluated(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    def change(record: dict[str, Any]) -> None:
        evil = f"__import__('os').system('touch {marker}')"
        for meta in graph_of(record)["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = evil
        record["guards_code"] = [evil]

    model = load_model(changed(tmp_path, change), "pt2")
    assert model.inputs[0].shape == (None, 3)
    assert not marker.exists()


def insert(record: dict[str, Any], target: str, *arguments: tuple[str, dict[str, Any]]) -> None:
    """A call before the network's own first one, whose result replaces the answer."""
    graph = graph_of(record)
    graph["nodes"].append(call(target, "evil", *arguments))
    graph["outputs"] = [{"as_tensor": {"name": "evil"}}]
    record["graph_module"]["signature"]["output_specs"] = [
        {"user_output": {"arg": {"as_tensor": {"name": "evil"}}}}
    ]
    graph["tensor_values"]["evil"] = graph["tensor_values"]["linear_1"]


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.set_.source_Storage",
        "torch.ops.aten.empty.memory_format",
        "torch.ops.aten.as_strided.default",
        "torch.ops.aten.bernoulli_.float",
        "torch.ops.aten.resize_.default",
        "torch.ops.prim.Print.default",
        "torch.ops.higher_order.cond",
        "torch.ops.aten.__class__.mro",
        "torch.ops.aten",
        "_operator.attrgetter",
        "_operator.pow",
        "builtins.eval",
        "os.system",
        "",
    ],
)
def test_operators_that_are_not_on_the_list(tmp_path: Path, target: str) -> None:
    path = changed(
        tmp_path,
        lambda record: insert(record, target, ("self", {"as_tensor": {"name": "linear"}})),
    )
    message = refusal(path, UnsupportedOperator)
    assert target.removeprefix("torch.ops.") in message
    assert "the layer head" in message


def test_an_operator_is_refused_even_where_nobody_reads_its_result(tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        name = ("filename", {"as_string": "/etc/passwd"})
        graph_of(record)["nodes"].append(call("torch.ops.aten.from_file.default", "x", name))

    assert "aten.from_file.default" in refusal(changed(tmp_path, change), UnsupportedOperator)


@pytest.mark.parametrize("name", ["x; import os", "a\nb", "self.y", "x'", "é", "1x", "", "a" * 400])
def test_names_that_would_become_python(tmp_path: Path, name: str) -> None:
    def change(record: dict[str, Any]) -> None:
        graph = graph_of(record)
        text = json.dumps(graph).replace('"linear"', json.dumps(name))
        record["graph_module"]["graph"] = json.loads(text)

    assert "is not the name of a value" in refusal(changed(tmp_path, change))


@pytest.mark.parametrize("key", ['0").x("', "a\nb", "__class__.x", "0.we'ight", "a..b", ".", ""])
def test_keys_that_would_become_python(tmp_path: Path, key: str) -> None:
    entries = entries_of(small(tmp_path))
    for where in (MODEL, WEIGHTS):
        text = entries[where].decode().replace('"0.weight"', json.dumps(key))
        entries[where] = text.encode()
    refusal(pack(tmp_path / "a.pt2", entries))


@pytest.mark.parametrize("key", ["forward.weight", "graph.weight", "training", "_modules.x"])
def test_keys_that_torch_keeps_for_itself(tmp_path: Path, key: str) -> None:
    entries = entries_of(small(tmp_path))
    for where in (MODEL, WEIGHTS):
        text = entries[where].decode().replace('"0.weight"', json.dumps(key))
        entries[where] = text.encode()
    assert key.partition(".")[0] in refusal(pack(tmp_path / "a.pt2", entries))


# --- tensors -----------------------------------------------------------------------------------


def weight_meta(record: dict[str, Any]) -> dict[str, Any]:
    return record["config"]["0.weight"]["tensor_meta"]


def test_a_tensor_larger_than_its_bytes(tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        weight_meta(record)["sizes"] = [{"as_int": 1 << 20}, {"as_int": 1 << 20}]
        weight_meta(record)["strides"] = [{"as_int": 1 << 20}, {"as_int": 1}]

    assert "0.weight claims 1,099,511,627,776 numbers" in refusal(
        changed(tmp_path, change, WEIGHTS)
    )


@pytest.mark.parametrize("strides", [(0, 0), (0, 1), (1, 1), (2, 1)])
def test_entries_that_share_memory(tmp_path: Path, strides: tuple[int, int]) -> None:
    def change(record: dict[str, Any]) -> None:
        weight_meta(record)["sizes"] = [{"as_int": 1 << 30}, {"as_int": 3}]
        weight_meta(record)["strides"] = [{"as_int": stride} for stride in strides]

    message = refusal(changed(tmp_path, change, WEIGHTS))
    assert "uses the same memory for several of its entries" in message


@pytest.mark.parametrize("offset", [1, 1 << 40])
def test_an_offset_beyond_the_bytes(tmp_path: Path, offset: int) -> None:
    def change(record: dict[str, Any]) -> None:
        weight_meta(record)["storage_offset"] = {"as_int": offset}

    assert "0.weight claims" in refusal(changed(tmp_path, change, WEIGHTS))


@pytest.mark.parametrize(
    "sizes", [[{"as_int": -1}, {"as_int": 3}], [{"as_int": True}], [{}], [{"as_int": 1 << 70}]]
)
def test_sizes_that_are_none(tmp_path: Path, sizes: list[dict[str, Any]]) -> None:
    def change(record: dict[str, Any]) -> None:
        weight_meta(record)["sizes"] = sizes

    assert "malformed" in refusal(changed(tmp_path, change, WEIGHTS))


def test_tensors_that_overlap_without_being_the_same(tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        record["config"]["0.bias"] = json.loads(json.dumps(record["config"]["0.weight"]))
        meta = record["config"]["0.bias"]["tensor_meta"]
        meta["sizes"], meta["strides"] = [{"as_int": 4}], [{"as_int": 1}]

    assert "overlap in memory" in refusal(changed(tmp_path, change, WEIGHTS))


def test_a_shape_that_differs_from_the_graphs(tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        weight_meta(record)["sizes"] = [{"as_int": 3}, {"as_int": 4}]
        weight_meta(record)["strides"] = [{"as_int": 4}, {"as_int": 1}]

    assert "two different shapes" in refusal(changed(tmp_path, change, WEIGHTS))


def test_number_types_that_are_not_on_the_list(tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        weight_meta(record)["dtype"] = 29

    assert "number type" in refusal(changed(tmp_path, change, WEIGHTS))


def test_truth_values_that_are_neither(tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        meta = weight_meta(record)
        meta["dtype"], meta["sizes"] = 12, [{"as_int": 12}, {"as_int": 4}]
        meta["strides"] = [{"as_int": 4}, {"as_int": 1}]

    assert "neither true nor false" in refusal(changed(tmp_path, change, WEIGHTS))


def test_a_missing_weight(tmp_path: Path) -> None:
    path = changed(tmp_path, lambda record: record["config"].pop("0.weight"), WEIGHTS)
    assert "the values of 0.weight are missing" in refusal(path)


# --- JSON --------------------------------------------------------------------------------------


def with_model_json(folder: Path, raw: bytes) -> Path:
    entries = entries_of(small(folder))
    entries[MODEL] = raw
    return pack(folder / "a.pt2", entries)


def test_nested_without_end(tmp_path: Path) -> None:
    raw = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    assert "nested too deeply" in refusal(with_model_json(tmp_path, raw))


def test_json_that_is_too_long(tmp_path: Path) -> None:
    raw = b'{"a":"' + b" " * (65 << 20) + b'"}'
    assert "at most 67,108,864 are accepted" in refusal(with_model_json(tmp_path, raw))


def test_json_with_too_many_parts_is_not_even_parsed(tmp_path: Path) -> None:
    path = with_model_json(tmp_path, b'{"a":[' + b"[]," * 5_000_000 + b"[]]}")
    tracemalloc.start()
    assert "at most 4,000,000" in refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * path.stat().st_size


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{", b"\xff\xfe", b'{"a":1}'])
def test_json_of_the_wrong_form(tmp_path: Path, raw: bytes) -> None:
    assert "malformed" in refusal(with_model_json(tmp_path, raw))


@pytest.mark.parametrize("seed", range(60))
def test_any_value_of_the_graph_may_be_anything(tmp_path: Path, seed: int) -> None:
    """Random damage anywhere gives a network or a sentence, never another exception."""
    random_ = random.Random(seed)
    junk: list[Any] = [None, True, -1, 1 << 80, 1.5, "x", [], {}, [None], {"as_int": None}]

    def change(record: dict[str, Any]) -> None:
        places: list[tuple[Any, Any]] = []

        def walk(value: Any) -> None:
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, inner in items:
                places.append((value, key))
                if isinstance(inner, (dict, list)):
                    walk(inner)

        walk(record)
        for _ in range(3):
            holder, key = random_.choice(places)
            holder[key] = random_.choice(junk)

    path = changed(tmp_path, change, random_.choice([MODEL, WEIGHTS]))
    with contextlib.suppress(InvalidFile):
        load_model(path, "pt2")


# --- what a network would cost ------------------------------------------------------------------


def test_a_tensor_made_out_of_nothing(tmp_path: Path) -> None:
    size = {"as_ints": [1 << 20, 1 << 20]}
    path = changed(
        tmp_path, lambda record: insert(record, "torch.ops.aten.zeros.default", ("size", size))
    )
    start = time.perf_counter()
    assert "GiB" in refusal(path)
    assert time.perf_counter() - start < 5


def test_numbers_that_double_without_end(tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        nodes = graph_of(record)["nodes"]
        last: dict[str, Any] = {"as_sym_int": {"as_int": 1 << 40}}
        for at in range(60):
            node = call("_operator.mul", f"n{at}", ("", last), ("", last))
            node["outputs"] = [{"as_sym_int": {"as_name": f"n{at}"}}]
            nodes.append(node)
            last = {"as_sym_int": {"as_name": f"n{at}"}}
        insert(record, "torch.ops.aten.add.Scalar", ("self", tensor("linear_1")), ("other", last))

    assert "out of range" in refusal(changed(tmp_path, change))


def tensor(name: str) -> dict[str, Any]:
    return {"as_tensor": {"name": name}}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([("self", tensor("nobody"))], "used before it is made"),
        ([("self", tensor("linear")), ("bogus", {"as_int": 1})], "arguments it does not have"),
        ([], "without an argument it needs"),
        ([("self", {"as_string": "x"})], "does not run"),
        ([("self", {"as_custom_obj": {"name": "x", "class_fqn": "y"}})], "custom object"),
    ],
)
def test_calls_that_make_no_sense(tmp_path: Path, arguments: list[Any], words: str) -> None:
    path = changed(
        tmp_path, lambda record: insert(record, "torch.ops.aten.relu.default", *arguments)
    )
    with pytest.raises(InvalidFile, match=words):
        load_model(path, "pt2")


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (
            "layer_norm",
            [
                ("input", tensor("linear_1")),
                ("normalized_shape", tensor("linear")),
                ("weight", tensor("p_2_bias")),
            ],
        ),
        (
            "dropout",
            [("input", tensor("linear_1")), ("p", {"as_float": 5.0}), ("train", {"as_bool": True})],
        ),
    ],
)
def test_settings_that_no_module_takes(tmp_path: Path, operator: str, arguments: Any) -> None:
    target = f"torch.ops.aten.{operator}.default"
    assert "does not run" in refusal(changed(tmp_path, lambda r: insert(r, target, *arguments)))


def test_reading_holds_the_weights_once(tmp_path: Path) -> None:
    """Peak memory of a process that reads a file of 200 MB stays well below twice its size."""
    net = torch.nn.Sequential(torch.nn.Linear(5000, 10_000, bias=False))
    path = export(net.eval(), (torch.randn(2, 5000),), tmp_path / "big.pt2")
    size = path.stat().st_size
    assert size > 200_000_000
    script = (
        "import sys, pathlib, worker.engine.formats.pt2 as pt2, torch\n"
        "torch._subclasses.fake_tensor\n"
        # The peak of getrusage is the parent's, until it is passed.
        "pathlib.Path('/proc/self/clear_refs').write_text('5')\n"
        "status = pathlib.Path('/proc/self/status')\n"
        "peak = lambda: int(status.read_text().split('VmHWM:')[1].split()[0])\n"
        "before = peak()\n"
        "model = pt2.load_model(pathlib.Path(sys.argv[1]), 'pt2')\n"
        "print((peak() - before) * 1024)\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    result = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0 < int(result.stdout) < 1.6 * size
