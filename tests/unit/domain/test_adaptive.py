"""Strata, the stream, looks, goals, and the estimate for a split from a part of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.adaptive import (
    Drop,
    Goal,
    Strata,
    Sums,
    divergence_of,
    drop_of,
    loss_change_of,
    needed_samples,
    reached,
)
from app.domain.stream_order import (
    BENDS,
    CUTS,
    PREVIEW,
    RATES,
    STRATA,
    first_samples,
    looks_of,
    random_order,
    strata_of,
    stream_order,
)


def sums_of(members: np.ndarray, drops: np.ndarray, rises: np.ndarray | None = None) -> Sums:
    sums = Sums(lost=int((drops > 0).sum()), gained=int((drops < 0).sum()))
    sums.add(members, drops, rises, None if rises is None else np.abs(rises))
    return sums


def strata_with(members: np.ndarray, apart: bool = False) -> Strata:
    return Strata(tuple(int(n) for n in np.bincount(members, minlength=STRATA)), apart=apart)


@st.composite
def splits(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Strata and drops of every sample of a split."""
    samples = draw(st.integers(1, 300))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    weights = generator.dirichlet(np.ones(STRATA))
    members = generator.choice(STRATA, samples, p=weights)
    drops = generator.choice([-1.0, 0.0, 1.0], samples, p=[0.05, 0.75, 0.2])
    return members, drops


def test_samples_are_cut_where_the_dense_network_is_unsure() -> None:
    margins = np.linspace(0.001, 1, 1000)
    wrong = np.zeros(1100, dtype=bool)
    wrong[1000:] = True
    members = strata_of(-np.concatenate([margins, np.ones(100)]), wrong)
    assert (members[1000:] == 0).all()
    counted = np.bincount(members[:1000], minlength=STRATA)[1:] / 1000
    assert np.cumsum(counted)[:-1] == pytest.approx(CUTS, abs=0.001)
    assert (np.diff(members[:1000]) >= 0).all()


def test_without_right_and_wrong_the_largest_losses_are_hardest() -> None:
    losses = np.arange(1000.0)
    members = strata_of(losses)
    assert members[-1] == 0
    assert members[0] == STRATA - 1
    assert (np.diff(members) <= 0).all()
    assert strata_of(np.array([np.nan, 1.0, 2.0]))[0] == strata_of(np.array([9.0, 1.0, 2.0]))[0]


@given(splits(), st.integers(0, 9))
def test_the_stream_is_an_order_of_all_samples(
    split: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    members, _ = split
    first = first_samples(None, len(members), min(8, len(members)), seed)
    order = stream_order(members, seed, first)
    assert sorted(order) == list(range(len(members)))
    assert (order[: len(first)] == first).all()
    assert (order == stream_order(members, seed, first)).all()


@given(splits(), st.integers(0, 9))
def test_every_beginning_gives_each_stratum_its_turn(
    split: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    """Whatever a stratum has given was due no later than what any other gives next."""
    members, _ = split
    order = members[stream_order(members, seed)]
    sizes = np.bincount(members, minlength=STRATA)
    known = sizes > 0
    pace, power = (sizes * RATES)[known], 1 / np.asarray(BENDS)[known]
    seen = np.stack([np.cumsum(order == stratum) for stratum in range(STRATA)], axis=1)[:, known]
    for counts in seen:
        due = np.maximum(0, counts - 1) / pace
        following = np.where(counts < sizes[known], (counts + 1) / pace, np.inf)
        assert (due**power).max() <= (following**power).min() + 1e-9


def test_a_preview_has_every_class_in_proportion() -> None:
    labels = np.repeat(np.arange(10), 100)
    first = first_samples(labels, 1000, 40, 3)
    assert (np.bincount(labels[first]) == 4).all()
    assert len(set(first.tolist())) == 40


@given(st.integers(1, 200_000), st.none() | st.integers(1, 200))
def test_looks_rise_to_the_end(samples: int, fixed: int | None) -> None:
    looks = looks_of(samples, fixed)
    assert looks[-1] == samples
    assert list(looks) == sorted(set(looks))
    assert all(look % (fixed or 1) == 0 for look in looks[:-1])
    assert len(looks) < 10 + 8 * math.log2(samples + 1)


@given(splits())
def test_all_samples_give_the_exact_drop(split: tuple[np.ndarray, np.ndarray]) -> None:
    members, drops = split
    rises = drops * 0.5 + 0.1
    strata, sums = strata_with(members), sums_of(members, drops, rises)
    found = drop_of(strata, sums)
    assert found is not None
    assert found.value == pytest.approx(drops.mean(), abs=1e-12)
    assert found.half_width == 0
    change = loss_change_of(strata, sums)
    assert change is not None
    assert change.value == pytest.approx(rises.mean(), abs=1e-12)
    assert divergence_of(strata, sums) == pytest.approx(np.abs(rises).mean(), abs=1e-12)


@given(splits(), st.integers(0, 9), st.data())
def test_a_part_is_weighted_by_what_the_strata_are_of_the_split(
    split: tuple[np.ndarray, np.ndarray], seed: int, data: st.DataObject
) -> None:
    """Against the weighted mean written out, a sample a term."""
    members, drops = split
    order = stream_order(members, seed)[: data.draw(st.integers(1, len(members)))]
    strata, sums = strata_with(members), sums_of(members[order], drops[order])
    total = covered = 0.0
    for stratum in range(STRATA):
        seen = [drops[i] for i in order if members[i] == stratum]
        if seen:
            total += strata.sizes[stratum] * sum(seen) / len(seen)
            covered += strata.sizes[stratum]
    found = drop_of(strata, sums)
    assert found is not None
    assert found.value == pytest.approx(total / covered, abs=1e-12)
    assert found.low <= found.value <= found.high


@given(splits())
def test_sums_survive_json(split: tuple[np.ndarray, np.ndarray]) -> None:
    members, drops = split
    sums = sums_of(members, drops, drops * np.nan)
    again = Sums.of(sums.as_json())
    assert again.as_json() == sums.as_json()
    assert loss_change_of(strata_with(members), again) is None


def test_nothing_seen_to_differ_is_not_certain_to_be_the_same() -> None:
    """Zero of n: the width falls like z² / n, as Wilson's does, and not to nothing."""
    members = strata_of(np.arange(100_000.0))
    strata = strata_with(members)
    widths = []
    for seen in (1024, 2048, 4096):
        order = stream_order(members, 0)[:seen]
        found = drop_of(strata, sums_of(members[order], np.zeros(seen)))
        assert found is not None
        widths.append(found.half_width)
        assert 0.25 * 1.96**2 / seen < found.half_width < 2 * 1.96**2 / seen
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.1)
    assert widths[1] / widths[2] == pytest.approx(2, rel=0.1)


def test_right_answers_can_only_be_lost() -> None:
    """Nothing seen to differ: what may be hidden lies above, but for what the wrong ones gain."""
    members = strata_of(np.arange(10_000.0), np.arange(10_000) % 10 == 0)
    order = stream_order(members, 0)[:512]
    sums = sums_of(members[order], np.zeros(512))
    alike, apart = drop_of(strata_with(members), sums), drop_of(strata_with(members, True), sums)
    assert alike is not None
    assert apart is not None
    assert alike.high == -alike.low
    assert alike.high * 0.8 < apart.high < alike.high
    assert 0 < -apart.low < 0.3 * apart.high
    assert apart.half_width == pytest.approx((apart.high - apart.low) / 2)
    lost = sums_of(members[order], (np.arange(512) % 2 == 0) & (members[order] > 0))
    wide = drop_of(strata_with(members, True), lost)
    assert wide is not None
    assert wide.high - wide.value == pytest.approx(wide.value - wide.low, rel=0.05), "much was seen"


def test_goals() -> None:
    members = strata_of(np.arange(10_000.0))
    strata = strata_with(members)
    order = stream_order(members, 0)
    generator = np.random.default_rng(0)
    drops = (generator.random(10_000) < 0.5).astype(float)

    def seen(count: int) -> Sums:
        return sums_of(members[order[:count]], drops[order[:count]])

    assert not reached(strata, seen(PREVIEW), Goal(relative=1.0)), "a preview decides nothing"
    assert reached(strata, seen(1024), Goal(relative=0.2))
    assert not reached(strata, seen(1024), Goal(relative=0.0, half_width=0.001))
    assert not reached(strata, seen(9_000), Goal(whole=True))
    assert reached(strata, seen(10_000), Goal(whole=True))
    assert reached(strata, seen(512), Goal(relative=0, half_width=1e-6, tolerance=0.01))
    assert not reached(strata, seen(512), Goal(relative=0, half_width=1e-6, tolerance=0.5))
    assert Goal.of(Goal(tolerance=0.1).as_json()) == Goal(tolerance=0.1)


@given(
    *[st.builds(Goal, st.floats(0.001, 0.1), st.floats(0, 0.2), st.floats(0.6, 0.99))] * 2,
    st.floats(0, 1),
    st.floats(0.0001, 0.2),
)
def test_a_joined_goal_is_reached_only_where_both_are(
    one: Goal, other: Goal, value: float, half: float
) -> None:
    """Also where one asks for the narrower interval and the other knows no share of the drop."""
    drop = Drop(value, value - half, value + half)
    joined = one.joined(other)
    assert not drop.reaches(joined) or (drop.reaches(one) and drop.reaches(other))
    assert joined == other.joined(one)
    assert joined.confidence >= max(one.confidence, other.confidence)
    assert one.joined(Goal(whole=True)).whole


def test_what_a_goal_will_take_is_foreseen() -> None:
    members = strata_of(np.arange(50_000.0))
    strata = strata_with(members)
    order = stream_order(members, 0)
    drops = (np.random.default_rng(0).random(50_000) < 0.1).astype(float)
    goal = Goal(relative=0.0)

    def half(count: int) -> float:
        found = drop_of(strata, sums_of(members[order[:count]], drops[order[:count]]))
        assert found is not None
        return found.half_width

    foreseen = needed_samples(strata, sums_of(members[order[:1024]], drops[order[:1024]]), goal)
    assert half(int(foreseen * 1.25)) < 0.01 < half(int(foreseen * 0.8))


# Whether intervals cover what they promise.


def test_random_order_intervals_hold_at_all_looks_together() -> None:
    """`sequence`: in at most 1 of 20 streams does any of the looks miss, whatever the figures."""
    samples, runs = 1500, 120
    for lost, gained in ((0.004, 0.0), (0.02, 0.01), (0.2, 0.2)):
        generator = np.random.default_rng(7)
        drops = generator.choice([1.0, -1.0, 0.0], samples, p=[lost, gained, 1 - lost - gained])
        strata = Strata((samples, *[0] * (STRATA - 1)))
        missed = 0
        for seed in range(runs):
            order = random_order(samples, seed)
            for look in looks_of(samples)[:-1:3]:
                part = drops[order[:look]]
                found = drop_of(strata, sums_of(np.zeros(look, np.intp), part), 0.95, "sequence")
                assert found is not None
                if not found.low - 1e-12 <= drops.mean() <= found.high + 1e-12:
                    missed += 1
                    break
        assert missed <= 0.05 * runs


def test_a_sequence_claims_nothing_where_a_sample_has_several_answers() -> None:
    strata = Strata((100, *[0] * (STRATA - 1)), scale=0.25)
    found = drop_of(strata, sums_of(np.zeros(50, np.intp), np.zeros(50)), 0.95, "sequence")
    assert found is not None
    assert found.half_width == math.inf


SCENES = ("margin", "uniform", "class", "far")


def pruned_cells(scene: str, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Strata of a split, and drops [cells, samples] as a network's cells may show them.

    `margin`: answers near the boundary change most, as in real networks; `uniform`: all alike;
    `class`: one class of ten is hurt, whatever its margins; `far`: only samples of large margin.
    """
    generator = np.random.default_rng(seed)
    margins = generator.gamma(2.0, 1.0, samples)
    wrong = generator.random(samples) < np.exp(-2 * margins)
    members = strata_of(-margins, wrong)
    classes = generator.integers(0, 10, samples)
    cells = []
    for strength in (0.003, 0.01, 0.03, 0.1, 0.4):
        if scene == "margin":
            chance = np.minimum(1, strength * 6 * np.exp(-1.5 * margins))
        elif scene == "uniform":
            chance = np.full(samples, strength)
        elif scene == "class":
            chance = np.where(classes == 3, min(1.0, 10 * strength), strength / 10)
        else:
            chance = np.where(members >= STRATA - 2, 1.6 * strength, 0.0)
        changed = generator.random(samples) < chance
        # A changed answer that was wrong is now and then right.
        back = generator.random(samples) < 0.3
        cells.append(np.where(changed & ~wrong, 1.0, np.where(changed & wrong & back, -1.0, 0.0)))
    return members, np.stack(cells)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_cells_stop_with_intervals_that_cover_as_promised(scene: str, confidence: float) -> None:
    """Measured as an analysis does, look by look until the goal is reached.

    Streams are drawn anew many times; the share of cells whose last interval misses the split's
    true drop may exceed what is promised by no more than chance explains (three deviations).
    """
    samples, streams = 4000, 80
    goal = Goal(half_width=0.015, confidence=confidence)
    outside = stopped = whole = 0
    for seed in range(streams):
        members, cells = pruned_cells(scene, samples, seed)
        strata, order = strata_with(members, apart=True), stream_order(members, seed)
        for drops in cells:
            sums, at = Sums(), 0
            for look in looks_of(samples):
                part = order[at:look]
                sums.add(members[part], drops[part])
                at = look
                if reached(strata, sums, goal):
                    break
            found = drop_of(strata, sums, confidence)
            assert found is not None
            stopped += 1
            whole += at == samples
            outside += not found.low - 1e-12 <= drops.mean() <= found.high + 1e-12
    allowed = (1 - confidence) * stopped
    assert outside <= allowed + 3 * math.sqrt(allowed * confidence) + 0.5, (outside, stopped)
    assert whole < stopped / 4, "nothing was saved"
