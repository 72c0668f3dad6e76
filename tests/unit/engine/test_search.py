"""Which cells are measured next, on curves made up for it: no network, no samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.domain.adaptive import Goal, Strata, Sums
from app.domain.levels import LEVEL_SCALE, removed_count, to_sparsity
from app.domain.stream_order import PREVIEW, STRATA
from worker.engine.cell_run import CellRun
from worker.engine.search import GridSearch, KneeSearch, RefiningSearch, curves
from worker.engine.sensitivity import Cell

SAMPLES = 1000
STRATA_OF_ALL = Strata((SAMPLES, *[0] * (STRATA - 1)))
GOAL = Goal()
TOLERANCE = 0.01
Curve = Callable[[CellRun], float]
"""The drop of a run."""


def run_of(unit: str, level: int, size: int = 10**6, goal: Goal = GOAL) -> CellRun:
    return CellRun([Cell(unit, "magnitude", level)], removed_count(level / 1e6, size), size, goal)


def show(run: CellRun, drop: float, seen: int) -> None:
    """So many samples, each with this very drop (or lost and kept ones that come to it)."""
    lost = round(drop * seen) if seen < SAMPLES else drop * seen
    share = [float(seen), *[0.0] * (STRATA - 1)]
    shown = [float(lost), *[0.0] * (STRATA - 1)]
    run.sums = Sums(n=np.array(share), d=np.array(shown), d2=np.abs(np.array(shown)))
    run.seen = seen


def drive(search: GridSearch | KneeSearch, drop: Curve) -> list[list[CellRun]]:
    """Measure what is asked for until nothing is; the rounds."""
    rounds: list[list[CellRun]] = []
    while active := search.active():
        assert len(rounds) < 300, "it never ends"
        assert all(not run.settled for run in active)
        assert len({id(run) for run in active}) == len(active)
        waiting = search.expected()
        assert all(any(run is other for other in waiting) for run in active)
        for run in active:
            show(run, 0.0 if run.removed == 0 else drop(run), SAMPLES)
            run.settled = True
        search.settled(active)
        rounds.append(list(active))
    assert search.active() == []
    return rounds


def knee_of(search: KneeSearch) -> list[int]:
    """For each curve the largest number removed whose run is known to be within, -1 for none."""
    return [
        bracket.runs[b].removed if (b := bracket.low) >= 0 else -1 for bracket in search._brackets
    ]


def test_a_grid_is_measured_until_all_of_it_is_settled() -> None:
    runs = [run_of("a", level) for level in (100_000, 200_000, 300_000)]
    search = GridSearch(runs)
    assert list(search.runs()) == search.active() == search.expected() == runs
    runs[1].settled = True
    assert search.active() == [runs[0], runs[2]]
    drive(search, lambda run: 0.5)
    assert search.expected() == []


def test_curves_rise_by_the_number_removed() -> None:
    levels = [300_000, 100_000, 200_000]
    runs = [run_of(unit, level) for level in levels for unit in "ab"]
    found = curves(runs)
    assert list(found) == [("a", "magnitude"), ("b", "magnitude")]
    assert [run.removed for run in found["a", "magnitude"]] == [100_000, 200_000, 300_000]


drops = st.lists(st.floats(-0.2, 1, allow_nan=False), min_size=1, max_size=40).map(sorted)


@given(st.lists(drops, min_size=1, max_size=4), st.booleans())
@example([[0.0]], False)
@example([[0.5]], False)
@example([[0.01]], False)
def test_bisection_finds_the_knee_that_a_scan_finds(
    units: list[list[float]], previews: bool
) -> None:
    truth = {f"u{at}": values for at, values in enumerate(units)}
    runs = [
        run_of(unit, (at + 1) * 1000) for unit, values in truth.items() for at in range(len(values))
    ]

    def drop(run: CellRun) -> float:
        return truth[run.unit][run.removed // 1000 - 1]

    if previews:
        for run in runs:
            show(run, drop(run), PREVIEW)
    search = KneeSearch(runs, lambda: STRATA_OF_ALL, TOLERANCE)
    rounds = drive(search, drop)
    scanned = [sum(value <= TOLERANCE for value in values) * 1000 or -1 for values in units]
    assert knee_of(search) == scanned
    for unit, values in truth.items():
        probes = sum(run.unit == unit for some in rounds for run in some)
        assert probes <= math.log2(len(values)) + 2, (unit, probes)
    assert search.expected() == []


def test_what_is_known_already_is_not_probed() -> None:
    runs = [run_of("u", (at + 1) * 1000) for at in range(9)]
    truth = [0.0] * 5 + [0.4] * 4
    for run, value in zip(runs, truth, strict=True):
        show(run, value, SAMPLES)
        run.settled = True
    search = KneeSearch(runs, lambda: STRATA_OF_ALL, TOLERANCE)
    assert drive(search, lambda run: math.nan) == []
    assert knee_of(search) == [5000]


@pytest.mark.parametrize("levels", [1, 2, 3, 8])
def test_a_level_at_which_nothing_leaves_is_within(levels: int) -> None:
    runs = [run_of("u", at * 1000) for at in range(levels + 1)]
    search = KneeSearch(runs, lambda: STRATA_OF_ALL, TOLERANCE)
    for run in runs[1:]:
        show(run, 0.0, PREVIEW)
    drive(search, lambda run: 0.0)
    assert knee_of(search) == [levels * 1000]
    runs = [run_of("u", at * 1000) for at in range(levels + 1)]
    search = KneeSearch(runs, lambda: STRATA_OF_ALL, TOLERANCE)
    drive(search, lambda run: 0.5)
    assert knee_of(search) in ([0], [-1])


@given(st.integers(4, 30), st.data())
def test_the_knee_moves_below_a_cliff_that_shows_early(levels: int, data: st.DataObject) -> None:
    """A curve that is bad at one level, good behind it, and bad at the end."""
    cliff = data.draw(st.integers(0, levels - 3))
    end = data.draw(st.integers(cliff + 2, levels - 1))
    truth = [0.0] * levels
    truth[cliff] = 0.9
    truth[end:] = [0.9] * (levels - end)
    runs = [run_of("u", (at + 1) * 1000) for at in range(levels)]

    def drop(run: CellRun) -> float:
        return truth[run.removed // 1000 - 1]

    for run in runs:
        show(run, drop(run), PREVIEW)
    search = KneeSearch(runs, lambda: STRATA_OF_ALL, TOLERANCE)
    drive(search, drop)
    assert knee_of(search) == [cliff * 1000 or -1]
    # What is said to be within was measured, and so was what is said to be beyond.
    assert all(runs[at].settled for at in (cliff - 1, cliff) if at >= 0)


def test_a_run_whose_drop_is_undefined_is_beyond() -> None:
    runs = [run_of("u", (at + 1) * 1000) for at in range(4)]
    search = KneeSearch(runs, lambda: STRATA_OF_ALL, TOLERANCE)
    drive(search, lambda run: math.nan if run.removed > 2000 else 0.0)
    assert knee_of(search) == [2000]


def refined(
    levels: Sequence[int], drop: Curve, refine: int, size: int = 10**6
) -> tuple[list[int], list[list[CellRun]]]:
    """The levels that were added, in their order, and the rounds."""
    runs = [run_of("u", level, size) for level in levels]
    search = RefiningSearch(
        runs,
        lambda: STRATA_OF_ALL,
        TOLERANCE,
        dict.fromkeys(curves(runs), refine),
        lambda c: run_of(c.unit, c.level, size),
    )
    rounds = drive(search, drop)
    return [run.cells[0].level for run in search.runs()[len(levels) :]], rounds


def test_each_level_more_halves_the_step_at_the_first_crossing() -> None:
    edges = [400_000, 700_000]

    def drop(run: CellRun) -> float:
        # Beyond from 0.43 to 0.5, within again to 0.8, and beyond at the end.
        return 0.5 if 430_000 < run.removed <= 500_000 or run.removed > 800_000 else 0.0

    found, _ = refined([0, 200_000, 400_000, 500_000, 700_000, 900_000], drop, 4)
    assert found == [450_000, 425_000, 437_500, 431_250]
    found, _ = refined([200_000, *edges, 900_000], drop, 2)
    assert found == [800_000, 850_000]


def test_below_the_first_level_is_the_dense_network() -> None:
    found, rounds = refined([300_000, 600_000], lambda run: 0.5, 3)
    assert found == [150_000, 75_000, 37_500]
    assert [len(some) for some in rounds] == [2, 1, 1, 1]


def test_a_curve_that_crosses_nowhere_is_left_as_it_is() -> None:
    assert refined([300_000, 600_000], lambda run: 0.0, 5)[0] == []
    assert refined([300_000, 600_000], lambda run: math.nan, 5)[0] == []
    assert refined([300_000, 600_000], lambda run: 0.5, 0)[0] == []


@settings(max_examples=60)
@given(
    st.integers(1, 40),
    st.lists(st.integers(0, LEVEL_SCALE), min_size=1, max_size=6, unique=True).map(sorted),
    st.integers(0, 40),
    st.integers(1, 12),
)
def test_units_of_few_entries_have_no_level_twice(
    size: int, levels: list[int], edge: int, refine: int
) -> None:
    distinct = list({removed_count(to_sparsity(level), size): level for level in levels}.values())
    found, _ = refined(distinct, lambda run: 0.5 if run.removed > edge else 0.0, refine, size)
    removed = [removed_count(to_sparsity(level), size) for level in [*distinct, *found]]
    assert len(removed) == len(set(removed))
    assert len(found) <= refine
    known = sorted(removed)
    beyond = [count for count in known if count > edge]
    if beyond and refine == 12:
        # With enough of them the knee is known to the entry.
        below = [count for count in known if count < beyond[0]]
        assert beyond[0] == max(below, default=0) + 1


@pytest.mark.parametrize("refine", [1, 5])
def test_curves_are_refined_each_for_itself(refine: int) -> None:
    runs = [run_of(unit, level) for unit in "abc" for level in (200_000, 800_000)]
    search = RefiningSearch(
        runs,
        lambda: STRATA_OF_ALL,
        TOLERANCE,
        dict.fromkeys(curves(runs), refine),
        lambda c: run_of(c.unit, c.level),
    )
    edges = {"a": 300_000, "b": 500_000, "c": 900_000}
    rounds = drive(search, lambda run: 0.5 if run.removed > edges[run.unit] else 0.0)
    more = {key[0]: len(some) - 2 for key, some in curves(search.runs()).items()}
    assert more == {"a": refine, "b": refine, "c": 0}
    assert len(rounds) == 1 + refine


def knees_refined(
    size: int, levels: Sequence[int], edges: dict[str, int], refine: int
) -> tuple[KneeSearch, list[list[CellRun]]]:
    """Knees of curves that are within up to an edge (entries removed)."""
    runs = [run_of(unit, level, size) for unit in edges for level in levels]
    search = KneeSearch(
        runs,
        lambda: STRATA_OF_ALL,
        TOLERANCE,
        dict.fromkeys(curves(runs), refine),
        lambda c: run_of(c.unit, c.level, size),
    )
    return search, drive(search, lambda run: 0.5 if run.removed > edges[run.unit] else 0.0)


def test_a_knee_is_found_more_finely_where_curves_may_have_more_levels() -> None:
    edges = {"a": 310_000, "b": 90_000, "c": 990_000}
    search, _ = knees_refined(10**6, (200_000, 400_000, 800_000), edges, 3)
    more = {key[0]: len(some) - 3 for key, some in curves(search.runs()).items()}
    assert more == {"a": 3, "b": 3, "c": 0}
    # 300,000 is within, 350,000 and 325,000 are beyond; 100,000 and 50,000 and 75,000 likewise.
    assert knee_of(search) == [300_000, 75_000, 800_000]
    assert all(run.goal.tolerance == TOLERANCE for run in search.runs())


@settings(max_examples=60)
@given(
    st.integers(2, 40),
    st.lists(st.integers(1, LEVEL_SCALE), min_size=1, max_size=6, unique=True).map(sorted),
    st.integers(0, 40),
)
def test_with_enough_levels_a_knee_is_known_to_the_entry(
    size: int, levels: list[int], edge: int
) -> None:
    distinct = list({removed_count(to_sparsity(level), size): level for level in levels}.values())
    search, _ = knees_refined(size, distinct, {"u": edge}, 12)
    removed = sorted(run.removed for run in search.runs())
    assert len(removed) == len(set(removed))
    if removed[-1] > edge:
        assert max(knee_of(search)[0], 0) == edge
