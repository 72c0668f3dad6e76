"""torch.export.load, way 7 of 7: guards are Python code, which .module() runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import kit
from tests.attacks.exported import LOAD_AND_USE, sound, written

FORMS = ["{}", "(lambda: {})()"]
AND_CALL = LOAD_AND_USE.rstrip() + "(torch.zeros(2, 3))"


@pytest.mark.parametrize("form", FORMS, ids=range(len(FORMS)))
def test_they_are_never_read(tmp_path: Path, canary: kit.Canary, form: str) -> None:
    evil = form.format(canary.expression)
    path = written(tmp_path, sound().changed(lambda record: record.update(guards_code=[evil])))
    outcome = kit.read_model(path)
    kit.harmless(outcome, canary)
    assert outcome.value["inputs"] == [[None, 3]]
    kit.dangerous(kit.elsewhere(AND_CALL, path=str(path)), canary)
