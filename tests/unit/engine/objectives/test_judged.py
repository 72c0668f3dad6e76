"""What a tally says of each sample: hits, losses, divergences; and what comes of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, kl_divergence
from torch.nn import functional

from app.domain.metrics import Kind
from tests.unit.engine.objectives.drawn import OBJECTIVES, Drawn, draw, figures
from worker.engine.objectives import (
    IGNORED,
    Judged,
    MultiLabel,
    Positions,
    Regression,
    SingleLabel,
    divergence,
)

LIMITED = settings(max_examples=60, deadline=None)
NAMES = st.sampled_from(sorted(OBJECTIVES))
SEEDS = st.integers(0, 2**32 - 1)


def judged(drawn: Drawn, rows: slice = slice(None), first: int = 0) -> Judged:
    reference = drawn.objective.reference(drawn.dense, drawn.labels)
    tally = drawn.objective.tally(drawn.rows)
    return tally.judge(drawn.outputs[rows], drawn.labels, drawn.answers(), first, reference)


def naive_hits(drawn: Drawn, row: int) -> list[list[bool]]:
    """Answer by answer, in plain Python; no hit where a position is ignored."""
    found: list[list[bool]] = []
    for outputs, label in zip(drawn.outputs[row], drawn.labels, strict=True):
        if isinstance(drawn.objective, MultiLabel):
            pairs = zip(outputs.tolist(), label.tolist(), strict=True)
            found.append([(value > 0) == bool(goal) for value, goal in pairs])
            continue
        goals = label.reshape(-1).tolist()
        values = outputs.reshape(len(goals), -1).tolist()
        found.append(
            [
                goal != IGNORED and each.index(max(each)) == goal
                for each, goal in zip(values, goals, strict=True)
            ]
        )
    return found


def naive_losses(drawn: Drawn, row: int) -> list[float]:
    """torch's own losses in float64, a sample each."""
    found = []
    for outputs, label in zip(drawn.outputs[row].double(), drawn.labels, strict=True):
        if isinstance(drawn.objective, Regression):
            loss = functional.mse_loss(outputs, label.double().reshape(-1), reduction="sum")
        elif isinstance(drawn.objective, MultiLabel):
            loss = functional.binary_cross_entropy_with_logits(
                outputs, label.double(), reduction="sum"
            )
        else:
            goals = label.reshape(-1)
            values = outputs.reshape(len(goals), -1)
            loss = functional.cross_entropy(values, goals, reduction="sum")
        found.append(float(loss))
    return found


def naive_divergences(drawn: Drawn, row: int) -> list[float]:
    found = []
    for p, q, label in zip(
        drawn.dense.double(), drawn.outputs[row].double(), drawn.labels, strict=True
    ):
        if isinstance(drawn.objective, MultiLabel):
            whole = kl_divergence(Bernoulli(logits=p), Bernoulli(logits=q)).sum()
        else:
            kept = (label != IGNORED).reshape(-1)
            logs = [torch.log_softmax(each.reshape(len(kept), -1)[kept], 1) for each in (q, p)]
            whole = functional.kl_div(logs[0], logs[1], log_target=True, reduction="sum")
        found.append(float(whole))
    return found


@LIMITED
@given(NAMES, SEEDS, st.integers(1, 30))
def test_each_sample_is_judged_as_by_a_loop(name: str, seed: int, samples: int) -> None:
    drawn = draw(OBJECTIVES[name], seed, samples)
    found = judged(drawn)
    plain = drawn.objective.tally(drawn.rows).judge(drawn.outputs, drawn.labels, drawn.answers())
    assert plain.divergences is None
    assert np.array_equal(plain.losses, found.losses)
    assert np.array_equal(plain.answers, found.answers)
    assert found.losses.dtype == np.float64
    for row in range(drawn.rows):
        np.testing.assert_allclose(found.losses[row], naive_losses(drawn, row), rtol=1e-12)
        if isinstance(drawn.objective, Regression):
            assert found.hits is None
            assert found.divergences is None
            continue
        assert found.hits is not None
        assert found.divergences is not None
        assert found.hits.shape == found.answers.shape
        assert found.hits[row].reshape(samples, -1).tolist() == naive_hits(drawn, row)
        expected = naive_divergences(drawn, row)
        np.testing.assert_allclose(found.divergences[row], expected, rtol=1e-9, atol=1e-12)


@LIMITED
@given(NAMES, SEEDS, st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_evaluations_have_the_means_and_the_counts_by_class(
    name: str, seed: int, sizes: list[int]
) -> None:
    drawn = draw(OBJECTIVES[name], seed, sum(sizes))
    ends = np.cumsum(sizes).tolist()
    batches = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    tally = drawn.tally(batches)
    counts = drawn.objective.counts(drawn.labels)
    assert (counts.shape, counts.dtype) == ((sum(sizes),), np.int64)
    for row in range(drawn.rows):
        found = tally.evaluation(row)
        if isinstance(drawn.objective, Regression):
            assert (found.kl, found.by_class) == (None, None)
            assert counts.tolist() == [drawn.objective.numbers] * sum(sizes)
            continue
        assert counts.sum() == found.judged
        expected = sum(naive_divergences(drawn, row))
        if found.judged:
            assert found.kl == pytest.approx(expected / found.judged, rel=1e-9)
        else:
            assert found.kl is None
        assert found.as_json()["kl"] == found.kl
        if found.kind not in (Kind.SINGLE_LABEL, Kind.PER_POSITION):
            assert found.by_class is None
            continue
        assert found.by_class is not None
        goals = drawn.labels.reshape(-1).tolist()
        hits = [hit for sample in naive_hits(drawn, row) for hit in sample]
        for name_, (seen, right) in enumerate(
            zip(found.by_class.seen.tolist(), found.by_class.right.tolist(), strict=True)
        ):
            assert seen == goals.count(name_)
            mine = [hit for hit, goal in zip(hits, goals, strict=True) if goal == name_]
            assert right == sum(mine)


def test_very_many_classes_are_not_counted_one_by_one() -> None:
    for objective in (SingleLabel(1001), Positions(Kind.PER_POSITION, 1001, (2,))):
        found = draw(objective, 0, 4).tally([slice(0, 4)]).evaluation(0)
        assert found.by_class is None
        assert found.kl is not None


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if "number" not in name])
def test_the_dense_network_is_at_no_distance_from_itself(name: str) -> None:
    drawn = draw(OBJECTIVES[name], 3, 40)
    itself = Drawn(drawn.objective, drawn.dense[None], drawn.dense, drawn.labels)
    found = judged(itself)
    assert found.divergences is not None
    assert not found.divergences.any()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_row_is_the_same_in_any_company_and_in_any_turn(name: str) -> None:
    drawn = draw(OBJECTIVES[name], 5, 61, rows=9)
    whole = judged(drawn)
    together, alone = drawn.tally([slice(0, 61)]), drawn.objective.tally(9)
    reference = drawn.objective.reference(drawn.dense, drawn.labels)
    for row in reversed(range(9)):
        some = drawn.outputs[row : row + 1]
        one = alone.judge(some, drawn.labels, drawn.answers(), row, reference)
        for field in ("answers", "hits", "losses", "divergences"):
            found, expected = getattr(one, field), getattr(whole, field)
            assert (found is None) == (expected is None)
            if found is not None:
                assert np.array_equal(found[0], expected[row]), field
    for row in range(9):
        assert figures(together.evaluation(row)) == figures(alone.evaluation(row))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_nan_spoils_its_own_row_only_and_raises_nothing(name: str) -> None:
    sound, spoilt = (draw(OBJECTIVES[name], 7, 20, nan=nan) for nan in (False, True))
    found, expected = spoilt.tally([slice(0, 20)]), sound.tally([slice(0, 20)])
    assert found.evaluation(0).kl is None
    assert found.evaluation(0).loss is None
    for row in (1, 2):
        assert figures(found.evaluation(row)) == figures(expected.evaluation(row))
    if isinstance(spoilt.objective, Positions):
        # Whatever the network says where nothing is asked does no harm.
        spoilt.labels[10] = IGNORED
        assert spoilt.tally([slice(0, 20)]).evaluation(0).kl is not None


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if "number" not in name])
def test_a_dense_network_that_says_nan_leaves_no_divergence(name: str) -> None:
    drawn = draw(OBJECTIVES[name], 7, 20)
    drawn.labels.clamp_(min=0)
    drawn.dense[3] = math.nan
    found = judged(drawn)
    assert found.divergences is not None
    assert np.isnan(found.divergences).nonzero()[1].tolist() == [3, 3, 3]
    assert drawn.tally([slice(0, 20)]).evaluation(1).kl is None


def test_classes_that_are_impossible_add_nothing_unless_they_were_possible() -> None:
    inf = math.inf
    dense = torch.tensor([[0.0, 0.0, -inf], [0.0, 0.0, 0.0], [0.0, -inf, -inf]])
    row = torch.tensor([[math.log(3), 0.0, -inf], [0.0, 0.0, -inf], [0.0, 0.0, -inf]])
    labels = torch.zeros(3, dtype=torch.int64)
    found = judged(Drawn(SingleLabel(3), row[None], dense, labels))
    assert found.divergences is not None
    # sum p ln (p / q): 1/2 ln (2/3) + 1/2 ln 2, and ln 2.
    expected = [0.5 * math.log(4 / 3), inf, math.log(2)]
    assert found.divergences[0].tolist() == pytest.approx(expected)
    one = Drawn(SingleLabel(3), row[None, ::2], dense[::2], labels[::2])
    assert one.tally([slice(0, 2)]).evaluation(0).kl == pytest.approx(np.mean(expected[::2]))


def test_certain_labels_have_a_divergence_too() -> None:
    inf = math.inf
    dense = torch.tensor([[inf, 0.0], [-inf, 0.0], [0.0, 0.0]])
    row = torch.tensor([[0.0, 0.0], [-inf, 1.0], [inf, 0.0]])
    labels = torch.tensor([[1, 0], [0, 1], [1, 1]])
    found = judged(Drawn(MultiLabel(2), row[None], dense, labels))
    assert found.divergences is not None
    half = float(kl_divergence(Bernoulli(logits=torch.tensor(0.0)), Bernoulli(logits=1.0)))
    assert found.divergences[0].tolist() == pytest.approx([math.log(2), half, inf])


@pytest.mark.parametrize("kind", [Kind.PER_POSITION, Kind.LANGUAGE_MODELLING])
def test_references_too_large_to_keep_say_the_same(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Chunks that end within a row, and rows that end within a chunk.
    monkeypatch.setattr("worker.engine.objectives.positions._CHUNK", 40)
    drawn = draw(Positions(kind, 11, (3,)), 2, 17, rows=4)
    monkeypatch.setattr(divergence, "_CHUNK", 40)
    kept = judged(drawn)
    monkeypatch.setattr(divergence, "_ROOM_BYTES", 100)
    computed = judged(drawn)
    assert drawn.objective.reference(drawn.dense, drawn.labels).probabilities is None
    assert kept.divergences is not None
    assert computed.divergences is not None
    for row in range(4):
        expected = naive_divergences(drawn, row)
        np.testing.assert_allclose(kept.divergences[row], expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(computed.divergences[row], expected, rtol=1e-5, atol=1e-6)


def test_long_rows_are_added_up_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = draw(SingleLabel(23), 2, 9)
    monkeypatch.setattr(divergence, "_BLAS_ALONE", 7)
    found = judged(drawn)
    assert found.divergences is not None
    np.testing.assert_allclose(found.divergences[0], naive_divergences(drawn, 0), rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_outputs_of_other_types(name: str, dtype: torch.dtype) -> None:
    drawn = draw(OBJECTIVES[name], 4, 12)

    def of(values: Tensor) -> Tensor:
        return values.to(dtype)

    drawn = Drawn(drawn.objective, of(drawn.outputs), of(drawn.dense), drawn.labels)
    found = judged(drawn)
    for row in range(drawn.rows):
        np.testing.assert_allclose(found.losses[row], naive_losses(drawn, row), rtol=1e-12)
        if found.divergences is not None:
            expected = naive_divergences(drawn, row)
            np.testing.assert_allclose(found.divergences[row], expected, rtol=1e-9, atol=1e-12)
