"""The algebra of ranks and counts."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.unit.engine.criteria import slow
from worker.engine.criteria import Removal
from worker.engine.criteria.filters import distance_sums
from worker.engine.criteria.magnitude import lamp_scores
from worker.engine.criteria.ranks import ranked, ranked_filters, ranked_in_rows

few = st.sampled_from([0.0, -1.0, 0.5, 1.0, 2.0, 3.0])


@st.composite
def matrices(draw: st.DrawFn) -> Tensor:
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    values = draw(st.lists(few, min_size=rows * columns, max_size=rows * columns))
    return torch.tensor(values).reshape(rows, columns)


@settings(max_examples=80, deadline=None)
@given(scores=matrices())
def test_any_count_removes_that_many_and_keeps_what_smaller_counts_keep_away(
    scores: Tensor,
) -> None:
    removal = Removal(ranked(scores))
    before = torch.ones_like(scores, dtype=torch.bool)
    for count in range(scores.numel() + 1):
        kept = removal.kept(count)
        assert int((~kept).sum()) == count
        assert not bool((kept & ~before).any())
        if 0 < count < scores.numel():
            assert scores[~kept].max() <= scores[kept].min()
        before = kept


@settings(max_examples=80, deadline=None)
@given(scores=matrices())
def test_rows_lose_evenly_and_their_lowest_first(scores: Tensor) -> None:
    rank = ranked_in_rows(scores)
    rows, columns = scores.shape
    for count in range(scores.numel() + 1):
        gone = rank < count
        lost = gone.sum(dim=1)
        assert int(lost.sum()) == count
        assert int(lost.max()) - int(lost.min()) <= 1
        for row in range(rows):
            values = scores[row].tolist()
            order = sorted(range(columns), key=lambda at, v=values: (v[at], at))
            assert set(order[: int(lost[row])]) == set(gone[row].nonzero().reshape(-1).tolist())
    # The rows that lose one more are those whose next entry scores least.
    turns = scores.sort(dim=1, stable=True).values
    for turn in range(columns):
        order = sorted(range(rows), key=lambda row, t=turn: (float(turns[row, t]), row))
        for place, row in enumerate(order):
            assert int((rank[row] < turn * rows + place + 1).sum()) == turn + 1
            assert int((rank[row] < turn * rows + place).sum()) == turn


@settings(max_examples=80, deadline=None)
@given(scores=st.lists(few, min_size=1, max_size=6), width=st.integers(1, 4))
def test_filters_leave_one_after_another(scores: list[float], width: int) -> None:
    owner = torch.arange(len(scores)).repeat_interleave(width).reshape(len(scores), width)
    order = sorted(range(len(scores)), key=lambda at: (scores[at], at))
    wanted = [at * width + place for at in order for place in range(width)]
    for turned in (owner, owner.t()):
        rank = ranked_filters(torch.tensor(scores), turned)
        left = [int(rank.reshape(-1).argsort()[at]) for at in range(rank.numel())]
        if turned is owner:
            assert left == wanted
        owners = turned.reshape(-1)[torch.tensor(left)].tolist()
        assert owners == [at for at in order for _ in range(width)]
        assert all(
            left[at : at + width] == sorted(left[at : at + width])
            for at in range(0, len(left), width)
        )


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20))
def test_lamp_is_the_papers_and_its_order_that_of_magnitude(values: list[float]) -> None:
    weight = torch.tensor(values)
    scores = lamp_scores(weight)
    expected = slow.lamp(weight.double().tolist())
    assert torch.allclose(scores, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)
    assert torch.equal(ranked(scores), ranked(weight.abs()))


@settings(max_examples=30, deadline=None)
@given(rows=matrices())
def test_distances_are_those_of_every_pair(rows: Tensor) -> None:
    sums = distance_sums(rows.double())
    assert torch.allclose(sums, torch.tensor(slow.distances(rows), dtype=torch.float64))
