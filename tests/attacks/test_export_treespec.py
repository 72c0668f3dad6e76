"""torch.export.load, way 6 of 7: the tree of the inputs names a module that is then imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.attacks import kit
from tests.attacks.exported import LOAD, sound, written

LEAF = {"type": None, "context": None, "children_spec": []}


def trees(module: str) -> dict[str, list[Any]]:
    factory = {
        "default_factory_module": module,
        "default_factory_name": "evil",
        "dict_context": ["x"],
    }
    default = {
        "type": "collections.defaultdict",
        "context": factory,
        "children_spec": [LEAF],
    }
    enum = {"__enum__": True, "fqn": f"{module}.evil", "name": "x"}
    keys = {"type": "builtins.dict", "context": json.dumps([enum]), "children_spec": [LEAF]}
    return {"default factory": [1, default], "key of an enumeration": [1, keys]}


@pytest.mark.parametrize("kind", trees(""))
@pytest.mark.parametrize("where", ["in_spec", "out_spec"])
def test_no_module_is_imported(tmp_path: Path, canary: kit.Canary, where: str, kind: str) -> None:
    """Whatever can be imported can be run: here a module on the path that acts when it is."""
    module = tmp_path / "modules" / "evil_module.py"
    module.parent.mkdir()
    module.write_text(f"open({str(canary.marker)!r}, 'w')\nevil = dict\n")

    def change(record: dict[str, Any]) -> None:
        for entry in record["graph_module"]["module_call_graph"]:
            if entry["fqn"] == "":
                entry["signature"][where] = json.dumps(trees("evil_module")[kind])

    path = written(tmp_path, sound().changed(change))
    outcome = kit.read_model(path, sys_path=str(module.parent))
    kit.harmless(outcome, canary)
    assert outcome.value["inputs"] == [[None, 3]]
    kit.dangerous(kit.elsewhere(LOAD, path=str(path), sys_path=str(module.parent)), canary)
