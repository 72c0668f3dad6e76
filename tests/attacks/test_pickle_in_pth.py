"""Files of torch.save whose pickle runs a command: every opcode, every place it can stand in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import kit, pickles

LOADS = "import torch\ntorch.load(path, weights_only=False)"
UNPICKLES = "import pickle\npickle.load(open(path, 'rb'))"
CODES = ("unsafe-file", "invalid-file")


def attacked(path: Path, canary: kit.Canary, program: str, suffix: str = "") -> None:
    outcome = kit.read_model(path)
    kit.refused(outcome, "", canary)
    assert outcome.error is not None
    assert outcome.error["code"] in CODES
    kit.dangerous(kit.elsewhere(program, path=str(path)), canary)


@pytest.mark.parametrize("way", pickles.ways("x"))
def test_among_sound_tensors(tmp_path: Path, canary: kit.Canary, way: str) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickles.state_dict_with(pickles.ways(canary.command)[way]))
    attacked(path, canary, LOADS)


@pytest.mark.parametrize("way", pickles.ways("x"))
def test_instead_of_them(tmp_path: Path, canary: kit.Canary, way: str) -> None:
    path = tmp_path / "evil.pt"
    path.write_bytes(pickles.saved(pickles.ways(canary.command)[way]))
    attacked(path, canary, LOADS)


@pytest.mark.parametrize("way", pickles.ways("x"))
def test_in_the_form_from_before_zips(tmp_path: Path, canary: kit.Canary, way: str) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickles.saved_before_zips(pickles.ways(canary.command)[way]))
    attacked(path, canary, LOADS)


@pytest.mark.parametrize("protocol", pickles.dumped("x"))
def test_a_bare_pickle(tmp_path: Path, canary: kit.Canary, protocol: int) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickles.dumped(canary.command)[protocol])
    attacked(path, canary, UNPICKLES)
