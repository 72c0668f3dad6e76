"""torch.export.load, way 2 of 7: opaque constants are pickles, custom objects nearly so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import kit, pickles
from tests.attacks.exported import LOAD, sound, written
from tests.unit.engine.archives import CONSTANTS

SAYS = [True, False]


def archive(folder: Path, canary: kit.Canary, file: str, use_pickle: bool) -> Path:
    evil = {"path_name": file, "is_param": False, "use_pickle": use_pickle, "tensor_meta": None}
    entries = sound().changed(lambda record: record["config"].update(hidden=evil), CONSTANTS)
    entries |= {f"m/data/constants/{file}": pickles.whole(pickles.shell(canary.command))}
    return written(folder, entries)


def test_an_opaque_one(tmp_path: Path, canary: kit.Canary) -> None:
    path = archive(tmp_path, canary, "opaque_obj_0", True)
    kit.dangerous(kit.elsewhere(LOAD, path=str(path)), canary)
    kit.refused(kit.read_model(path), "hidden is stored as a pickle", canary, code="unsafe-file")


@pytest.mark.parametrize("file", ["opaque_obj_0", "custom_obj_0", "tensor_0"])
@pytest.mark.parametrize("use_pickle", SAYS)
def test_whatever_it_says_it_is(
    tmp_path: Path, canary: kit.Canary, file: str, use_pickle: bool
) -> None:
    """A custom object is unpickled by C++, which makes only registered classes: no canary there."""
    path = archive(tmp_path, canary, file, use_pickle)
    kit.refused(kit.read_model(path), "hidden is stored as a pickle", canary, code="unsafe-file")


@pytest.mark.parametrize("tag", ["custom_obj", "token"])
def test_as_an_input_of_the_graph(tmp_path: Path, canary: kit.Canary, tag: str) -> None:
    def change(record: dict) -> None:
        specs = record["graph_module"]["signature"]["input_specs"]
        specs[0] = {tag: {"arg": {"name": "p_0_weight", "class_fqn": "os.system"}}}

    path = written(tmp_path, sound().changed(change))
    kit.refused(kit.read_model(path), "custom object", canary, code="unsafe-file")
