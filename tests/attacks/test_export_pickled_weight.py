"""torch.export.load, way 1 of 7: a weight that says it is a pickle is unpickled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import kit, pickles
from tests.attacks.exported import LOAD, sound, written
from tests.unit.engine.archives import CONSTANTS, WEIGHTS


@pytest.mark.parametrize(
    ("config", "folder", "file"),
    [(WEIGHTS, "weights", "weight_9"), (CONSTANTS, "constants", "tensor_9")],
    ids=["weight", "constant"],
)
@pytest.mark.parametrize("before_zips", [False, True])
def test_it_is_refused(
    tmp_path: Path, canary: kit.Canary, config: str, folder: str, file: str, before_zips: bool
) -> None:
    evil = {"path_name": file, "is_param": True, "use_pickle": True, "tensor_meta": None}
    save = pickles.saved_before_zips if before_zips else pickles.saved
    entries = sound().changed(lambda record: record["config"].update({"9.weight": evil}), config)
    entries |= {f"m/data/{folder}/{file}": save(pickles.shell(canary.command))}
    path = written(tmp_path, entries)
    kit.dangerous(kit.elsewhere(LOAD, path=str(path)), canary)
    kit.refused(kit.read_model(path), "9.weight is stored as a pickle", canary, code="unsafe-file")
