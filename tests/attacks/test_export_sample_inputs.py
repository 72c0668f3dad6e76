"""torch.export.load, way 3 of 7: the example inputs are a file of torch.save.

They are of no use to us: a hostile one is never opened, and the network beside it is read.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import kit, pickles
from tests.attacks.exported import LOAD, sound, written

SAMPLES = "m/data/sample_inputs/model.pt"


@pytest.mark.parametrize("save", [pickles.saved, pickles.saved_before_zips, pickles.whole])
def test_they_are_never_opened(tmp_path: Path, canary: kit.Canary, save) -> None:
    path = written(tmp_path, sound() | {SAMPLES: save(pickles.shell(canary.command))})
    outcome = kit.read_model(path)
    kit.harmless(outcome, canary)
    assert outcome.value == kit.read_model(written(tmp_path, sound(), "sound.pt2")).value
    kit.dangerous(kit.elsewhere(LOAD, path=str(path)), canary)
