"""Cells along the stream, for every kind of task, against each sample worked out by itself."""

from __future__ import annotations

import numpy as np
import pytest

from app.domain.adaptive import drop_of, loss_change_of
from app.domain.metrics import Kind
from tests.unit.engine.shown import (
    CLASSES,
    NEVER,
    SCENES,
    WHOLE,
    Scene,
    Shown,
    assert_sums,
    engine_of,
    last,
    measured,
    pruned,
    shown,
    sums_of,
)
from worker.engine.curves import CurveEngine, Finding

LEVELS = (400_000, 900_000, 1_000_000)


def check_whole(scene: Scene, found: Finding, dense: Shown, own: Shown) -> None:
    """The figures of the whole split."""
    whole = found.whole
    assert whole is not None
    assert found.settled
    assert found.samples == found.of == whole.samples == len(own.losses)
    answers = int(own.answers.sum())
    assert whole.loss == pytest.approx(own.losses.sum() / answers, rel=1e-9)
    if scene.kind is Kind.REGRESSION:
        assert (whole.correct, whole.flips, whole.lost, whole.gained) == (None,) * 4
        assert whole.kl is None
        return
    assert own.hits is not None
    assert dense.hits is not None
    assert own.judged is not None
    assert whole.judged == answers
    assert whole.correct == own.hits.sum()
    assert whole.flips == ((own.said != dense.said) & own.judged).sum()
    assert whole.lost == (dense.hits & ~own.hits).sum()
    assert whole.gained == (own.hits & ~dense.hits).sum()
    assert whole.kl == pytest.approx(own.divergence(dense).sum() / answers, rel=1e-9, abs=1e-13)


def true_drop(scene: Scene, dense: Shown, own: Shown, labels: np.ndarray) -> float:
    answers = dense.answers.sum()
    rise = (own.losses.sum() - dense.losses.sum()) / answers
    if scene.kind is Kind.REGRESSION:
        return float(rise / labels.astype(np.float64).var())
    if scene.kind is Kind.LANGUAGE_MODELLING:
        return float(rise)
    return float((dense.right.sum() - own.right.sum()) / answers)


def packed_hits(own: Shown, order: np.ndarray) -> bytes:
    assert own.hits is not None
    return np.packbits(own.hits[order].reshape(-1)).tobytes()


def check(scene: Scene, engine: CurveEngine, model, split, told, batch: int | None = None) -> None:
    """Everything that was told of every cell, parts too."""
    dense = shown(scene, model, split, batch)
    order, members = engine.stream.order, engine.stream.members
    assert sorted(order) == list(range(len(split)))
    seen = set()
    for each in told:
        found = each.finding
        with pruned(model, found.cell.unit, found.cell.level / 1e6):
            own = shown(scene, model, split, batch)
        strata = np.zeros_like(members) if found.preview else members
        expected = sums_of(dense, own, order, strata, found.samples)
        if found.preview:
            # The number of answers is not known yet, only that of the first samples.
            first = order[: found.samples]
            known = len(first) / dense.answers[first].sum()
            expected = scaled(expected, known * dense.answers.sum() / len(split))
        assert_sums(each.sums, expected)
        if own.hits is not None:
            assert each.hits == packed_hits(own, order[: found.samples])
            assert found.raw.correct == own.hits[order[: found.samples]].sum()
        seen.add((found.cell, found.samples))
        if found.samples == len(split) and not found.preview:
            check_whole(scene, found, dense, own)
            drop = drop_of(engine.strata, each.sums)
            truth = true_drop(scene, dense, own, split.labels)
            assert drop is not None
            assert drop.value == pytest.approx(truth, rel=1e-9, abs=1e-12)
            assert drop.low == drop.high == drop.value
            rise = loss_change_of(engine.strata, each.sums)
            assert rise is not None
            assert rise.value == pytest.approx(
                (own.losses.sum() - dense.losses.sum()) / dense.answers.sum(), rel=1e-9, abs=1e-12
            )
    assert len(seen) >= len({cell for cell, _ in seen})


def scaled(sums, factor: float):
    for name in ("d", "l", "k"):
        getattr(sums, name)[:] *= factor
        getattr(sums, name + "2")[:] *= factor**2
    return sums


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_whole_cells_have_the_figures_of_the_naive_loop(scene: Scene) -> None:
    model, split = scene.model(), scene.split(101)
    engine = engine_of(model, split)
    told = measured(engine, LEVELS, WHOLE)
    assert engine.objective.kind is scene.kind
    assert all(each.finding.settled for each in last(told).values())
    assert len(last(told)) == len(engine.cells(LEVELS))
    check(scene, engine, model, split, told)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_parts_have_the_sums_of_their_samples(scene: Scene) -> None:
    model, split = scene.model(), scene.split(150, seed=1)
    engine = engine_of(model, split)
    told = measured(engine, LEVELS[:2], NEVER)
    assert {each.finding.samples for each in told} == {32, 64, 128, 150}
    assert all(each.finding.preview == (each.finding.samples == 32) for each in told)
    check(scene, engine, model, split, told)


@pytest.mark.parametrize("samples", [1, 2, 31, 32, 33, 65, 127])
@pytest.mark.parametrize("goal", [WHOLE, NEVER], ids=["whole", "looks"])
def test_any_number_of_samples(samples: int, goal) -> None:
    model, split = CLASSES.model(), CLASSES.split(samples)
    engine = engine_of(model, split, batch_size=13)
    told = measured(engine, LEVELS[:2], goal)
    assert all(each.finding.settled for each in last(told).values())
    check(CLASSES, engine, model, split, told)


@pytest.mark.parametrize(
    ("samples", "batch"), [(70, 7), (150, 7), (100, 64), (150, 40), (100, 128), (5, 8), (33, 33)]
)
@pytest.mark.parametrize("goal", [WHOLE, NEVER], ids=["whole", "looks"])
def test_a_network_of_one_batch_size(samples: int, batch: int, goal) -> None:
    model, split = CLASSES.model(fixed_batch=batch), CLASSES.split(samples)
    sizes: set[int] = set()
    model.module.get_submodule("0").register_forward_pre_hook(
        lambda _, inputs: sizes.add(len(inputs[0]))
    )
    engine = engine_of(model, split)
    told = measured(engine, LEVELS[:2], goal)
    assert all(each.finding.settled for each in last(told).values())
    # (A pair of samples finds out what is predicted; everything measured has the one size.)
    assert sizes <= {batch}
    check(CLASSES, engine, model, split, told, batch)


@pytest.mark.parametrize("name", ["classes", "tagger", "regression"])
def test_a_simple_random_order(name: str) -> None:
    scene = next(each for each in SCENES if each.name == name)
    model, split = scene.model(), scene.split(150)
    engine = engine_of(model, split, at_random=True)
    told = measured(engine, LEVELS[:2], NEVER)
    check(scene, engine, model, split, told)
