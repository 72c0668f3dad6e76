"""Graphs whose operators read, write or load files: nothing but arithmetic is on the list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.attacks import kit
from tests.attacks.exported import answering, sound, tensor, written
from tests.unit.engine.archives import call, graph_of

USES = """import torch
program = torch.export.load(path)
result = program.graph_module(*program.state_dict.values(), torch.zeros(2, 3))"""


def string(value: str) -> dict[str, Any]:
    return {"as_string": value}


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_is_mapped(tmp_path: Path, canary: kit.Canary, shared: bool) -> None:
    """aten.from_file reads any file of the server; shared, it makes one."""

    def change(record: dict[str, Any]) -> None:
        node = call(
            "torch.ops.aten.from_file.default",
            "evil",
            ("filename", string(str(canary.marker))),
            ("shared", {"as_bool": shared}),
            ("size", {"as_int": 8}),
        )
        answering(record, node)

    path = written(tmp_path, sound().changed(change))
    words = "aten.from_file.default in the layer head"
    kit.refused(kit.read_model(path), words, canary, code="unsupported-operator")
    if shared:
        kit.dangerous(kit.elsewhere(USES, path=str(path)), canary)


def test_even_where_nobody_reads_the_result(tmp_path: Path, canary: kit.Canary) -> None:
    """Dead code is checked before it is removed."""
    node = call("torch.ops.aten.from_file.default", "x", ("filename", string("/etc/passwd")))
    path = written(tmp_path, sound().changed(lambda r: graph_of(r)["nodes"].append(node)))
    kit.refused(kit.read_model(path), "aten.from_file.default", canary, code="unsupported-operator")


def test_in_a_graph_within_the_graph(tmp_path: Path, canary: kit.Canary) -> None:
    def change(record: dict[str, Any]) -> None:
        graph = graph_of(record)
        evil = call(
            "torch.ops.aten.from_file.default", "evil", ("filename", string(str(canary.marker)))
        )
        inner = {
            "inputs": [tensor("y")],
            "outputs": [tensor("evil")],
            "nodes": [evil],
            "tensor_values": dict.fromkeys(("y", "evil"), graph["tensor_values"]["linear_1"]),
            "sym_int_values": {}, "sym_bool_values": {}, "is_single_tensor_return": False,
        }  # fmt: skip
        node = call(
            "torch.ops.higher_order.wrap_with_set_grad_enabled",
            "evil",
            ("", {"as_bool": False}),
            ("", {"as_graph": {"name": "inner", "graph": inner}}),
            ("", tensor("linear_1")),
        )
        answering(record, node)

    path = written(tmp_path, sound().changed(change))
    kit.refused(kit.read_model(path), "aten.from_file.default", canary, code="unsupported-operator")


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.load_library",
        "torch.ops.import_module",
        "torch.ops.aten.save",
        "torch.ops.aten._print.default",
        "torch.ops.prim.Print.default",
        "torch.ops.aten.ShareMemory.default",
        "torch.ops.profiler._record_function_enter.default",
        "torch.ops.prims._make_token.default",
        "torch.ops.debugprims.load_tensor.default",
        "torch.ops.torchvision.decode_image.default",
        "torch.ops.image.read_file.default",
        "torch.ops.torchaudio.sox_effects_apply_effects_file.default",
        "torch._C._load_for_lite_interpreter",
        "torch.load",
        "torch.save",
        "torch.hub.load",
        "torch.jit.load",
        "torch.utils.cpp_extension.load_inline",
        "numpy.load",
        "numpy.fromfile",
        "builtins.open",
        "io.open",
        "os.remove",
        "shutil.rmtree",
        "pathlib.Path.unlink",
    ],
)
def test_operators_and_functions_of_files(tmp_path: Path, canary: kit.Canary, target: str) -> None:
    node = call(target, "evil", ("path", string(str(canary.marker))))
    path = written(tmp_path, sound().changed(lambda record: answering(record, node)))
    kit.refused(kit.read_model(path), "is not on the list", canary, code="unsupported-operator")
