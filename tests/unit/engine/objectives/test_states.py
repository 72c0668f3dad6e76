"""The sums of a tally: kept, and gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import InvalidInput
from tests.unit.engine.objectives.drawn import OBJECTIVES, all_figures, draw, figures
from worker.engine.objectives import SingleLabel, State

LIMITED = settings(max_examples=60, deadline=None)
NAMES = st.sampled_from(sorted(OBJECTIVES))
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def cut(sizes: list[int]) -> list[slice]:
    """Batches of these sizes, one after the other."""
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def same(a: State, b: State) -> None:
    assert a.keys() == b.keys()
    for name, one in a.items():
        np.testing.assert_array_equal(one, b[name], name)
        assert one.dtype == b[name].dtype, name


@LIMITED
@given(NAMES, SEEDS, SIZES, st.data())
def test_a_tally_goes_on_bit_for_bit(
    name: str, seed: int, sizes: list[int], data: st.DataObject
) -> None:
    batches = cut(sizes)
    drawn = draw(OBJECTIVES[name], seed, sum(sizes), nan=data.draw(st.booleans()))
    whole = drawn.tally(batches)
    at = data.draw(st.integers(0, len(batches)))
    first = drawn.tally(batches[:at])
    kept = [first.state(row) for row in range(drawn.rows)]
    resumed = drawn.feed(drawn.objective.restore(kept), batches[at:])
    assert all_figures(resumed, drawn.rows) == all_figures(whole, drawn.rows)
    for row in range(drawn.rows):
        same(resumed.state(row), whole.state(row))


@LIMITED
@given(NAMES, SEEDS, st.lists(st.integers(0, 20), min_size=1, max_size=4))
def test_rows_may_have_seen_different_samples(name: str, seed: int, counts: list[int]) -> None:
    drawn = draw(OBJECTIVES[name], seed, 20, rows=len(counts))
    alone = [drawn.tally([slice(0, count)] if count else []) for count in counts]
    kept = [tally.state(row) for row, tally in enumerate(alone)]
    together = drawn.objective.restore(kept)
    for row, tally in enumerate(alone):
        assert figures(together.evaluation(row)) == figures(tally.evaluation(row))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_batch_without_a_dense_network_leaves_no_comparison(name: str) -> None:
    drawn = draw(OBJECTIVES[name], 1, 8)
    known, unknown = {}, {"referenced": False, "paired": False}
    for first, then in ((known, unknown), (unknown, known)):
        kept = drawn.tally([slice(0, 4)], **first).state(0)
        one = replace(drawn, outputs=drawn.outputs[:1])
        found = one.feed(one.objective.restore([kept]), [slice(4, 8)], **then).evaluation(0)
        assert (found.flips, found.lost, found.gained, found.kl) == (None, None, None, None)
        assert found.samples == 8


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_state_is_a_copy(name: str) -> None:
    drawn = draw(OBJECTIVES[name], 1, 8)
    tally = drawn.tally([slice(0, 4)])
    state = tally.state(1)
    before = {key: value.copy() for key, value in state.items()}
    drawn.feed(tally, [slice(4, 8)])
    same(state, before)
    again = drawn.objective.restore([state])
    drawn.feed(drawn.objective.restore([state] * drawn.rows), [slice(4, 8)])
    same(again.state(0), before)


def test_the_sums_of_another_kind_are_refused() -> None:
    of: dict[str, Mapping[str, Any]] = {
        name: objective.tally(1).state(0) for name, objective in OBJECTIVES.items()
    }
    for one, other in (("single-12", "labels-6"), ("single-3", "single-12"), ("number", "words")):
        with pytest.raises(InvalidInput, match="another kind"):
            OBJECTIVES[one].restore([of[other]])
    with pytest.raises(InvalidInput, match="another kind"):
        SingleLabel(3).restore([{}])
