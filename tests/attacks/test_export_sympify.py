"""torch.export.load, way 4 of 7: sizes that are expressions go through sympy, which is eval."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.attacks import kit
from tests.attacks.exported import LOAD, sound, written
from tests.unit.engine.archives import graph_of

Record = dict[str, Any]


def in_shapes(record: Record, evil: str) -> None:
    for meta in graph_of(record)["tensor_values"].values():
        for place in (*meta["sizes"], *meta["strides"]):
            if "as_expr" in place:
                place["as_expr"]["expr_str"] = evil


def in_symbolic_values(record: Record, evil: str) -> None:
    hint = {"as_int": 2}
    graph_of(record)["sym_int_values"] = {
        "s0": {"as_expr": {"expr_str": evil, "hint": hint}},
    }


@pytest.mark.parametrize("change", [in_shapes, in_symbolic_values])
def test_it_is_a_free_size_and_nothing_else(
    tmp_path: Path, canary: kit.Canary, change: Callable[[Record, str], None]
) -> None:
    entries = sound().changed(lambda record: change(record, canary.expression))
    path = written(tmp_path, entries)
    outcome = kit.read_model(path)
    kit.harmless(outcome, canary)
    assert outcome.error is None
    assert outcome.value["inputs"] == [[None, 3]]
    if change is in_shapes:
        kit.dangerous(kit.elsewhere(LOAD, path=str(path)), canary)


def test_an_expression_that_computes_for_ever(tmp_path: Path, canary: kit.Canary) -> None:
    path = written(tmp_path, sound().changed(lambda r: in_shapes(r, "9**9**9**9")))
    outcome = kit.read_model(path)
    kit.harmless(outcome, canary)
    assert outcome.value["inputs"] == [[None, 3]]
