"""`.pt2` files of older torch keep weights and constants in one pickle."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import kit, pickles
from tests.attacks.exported import LOAD, Entries, sound, written
from tests.unit.engine.archives import CONSTANTS, WEIGHTS

FILES = {WEIGHTS: "m/data/weights/model.pt", CONSTANTS: "m/data/constants/model.pt"}
SAVES = [pickles.saved, pickles.saved_before_zips, pickles.state_dict_with]


@pytest.mark.parametrize("config", FILES, ids=["weights", "constants"])
@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("keeps_list", [False, True])
def test_it_is_never_opened_without_walls(
    tmp_path: Path, canary: kit.Canary, config: str, save, keeps_list: bool
) -> None:
    entries = sound() | {FILES[config]: save(pickles.shell(canary.command))}
    if not keeps_list:
        entries.pop(config)
    path = written(tmp_path, entries)
    kit.refused(kit.read_model(path), "", canary)
    kit.dangerous(kit.elsewhere(LOAD, path=str(path)), canary)


@pytest.mark.parametrize("way", pickles.ways("x"))
def test_every_way(tmp_path: Path, canary: kit.Canary, way: str) -> None:
    entries = sound()
    entries.pop(WEIGHTS)
    evil = pickles.state_dict_with(pickles.ways(canary.command)[way])
    path = written(tmp_path, entries | {FILES[WEIGHTS]: evil})
    kit.refused(kit.read_model(path), "", canary)


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("file", ["state_dict", "constants", "example_inputs"])
def test_the_oldest_form(tmp_path: Path, canary: kit.Canary, save, file: str) -> None:
    """One pickle beside each other in the archive's root, before there was a folder for models."""
    graph = sound()["m/models/model.json"]
    entries = Entries({
        "m/serialized_exported_program.json": graph,
        "m/serialized_state_dict.pt": b"",
        "m/serialized_constants.pt": b"",
        "m/serialized_example_inputs.pt": b"",
        "m/version": b"8.1",
    })  # fmt: skip
    entries[f"m/serialized_{file}.pt"] = save(pickles.shell(canary.command))
    kit.refused(kit.read_model(written(tmp_path, entries)), "", canary)
