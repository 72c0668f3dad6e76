"""In which order a split is seen."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.engine.shown import SCENES, engine_of
from worker.engine.sample_order import SampleOrder

SAMPLES = 300


@pytest.mark.parametrize("name", ["classes", "labels", "regression", "words"])
@pytest.mark.parametrize("at_random", [False, True])
def test_a_preview_sees_what_every_stream_begins_with(name: str, at_random: bool) -> None:
    scene = next(each for each in SCENES if each.name == name)
    split = scene.split(SAMPLES)
    objective = engine_of(scene.model(), split).objective
    order = SampleOrder(split, objective, SAMPLES, 5, 64, None, at_random)
    found = order.of_preview().order
    assert sorted(found) == list(range(SAMPLES))
    np.testing.assert_array_equal(found[: len(order.first)], order.first)


@pytest.mark.parametrize("name", ["classes", "labels", "regression", "words"])
def test_wrong_answers_stand_apart_where_samples_have_one_answer(name: str) -> None:
    scene = next(each for each in SCENES if each.name == name)
    engine = engine_of(scene.model(), scene.split(SAMPLES))
    assert engine.strata.apart == (name == "classes")
    if engine.strata.apart:
        assert engine.strata.sizes[0] == SAMPLES - engine.baseline().correct
        assert 0 < engine.strata.sizes[0] < SAMPLES
