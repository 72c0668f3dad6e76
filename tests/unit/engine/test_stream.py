"""The order of the samples, the batches it is cut into, and the dense network along it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.domain.adaptive import Strata
from app.domain.stream_order import PREVIEW, STRATA, first_samples, looks_of
from tests.unit.engine.shown import CLASSES, SCENES, WHOLE, engine_of, measured, shown
from tests.unit.engine.traced import split_of
from worker.engine import stream as streams
from worker.engine.stream import DenseStream, Stream, reordered, right_of, sizes_of


def stream_of(
    members: np.ndarray,
    seed: int = 0,
    batch_size: int = 32,
    fixed_batch: int | None = None,
    first: np.ndarray | None = None,
    **options: bool,
) -> Stream:
    split = split_of([np.arange(len(members))[:, None]], np.arange(len(members)) * 3)
    return Stream.of(
        split,
        members,
        Strata(sizes_of(members)),
        seed=seed,
        first=first,
        batch_size=batch_size,
        fixed_batch=fixed_batch,
        **options,
    )


@st.composite
def strata(draw: st.DrawFn) -> np.ndarray:
    """The stratum of each sample of a split, some strata without any."""
    sizes = draw(st.lists(st.integers(0, 60), min_size=STRATA, max_size=STRATA).filter(any))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    return generator.permutation(np.repeat(np.arange(STRATA), sizes))


@given(strata(), st.integers(0, 99), st.booleans())
def test_it_is_an_order_of_the_split(members: np.ndarray, seed: int, at_random: bool) -> None:
    count = min(len(members), PREVIEW)
    first = np.random.default_rng(1).permutation(len(members))[:count]
    stream = stream_of(members, seed, first=first, at_random=at_random)
    assert sorted(stream.order) == list(range(len(members)))
    assert (stream.members == members[stream.order]).all()
    inputs, labels = stream.split.batch(0, len(members))
    assert inputs[0][:, 0].tolist() == stream.order.tolist()
    assert labels.tolist() == (stream.order * 3).tolist()
    if not at_random:
        assert (stream.order[:count] == first).all()
    same = stream_of(members, seed, first=first, at_random=at_random)
    assert (same.order == stream.order).all()
    assert same.mark == stream.mark
    other = stream_of(members, seed + 1, first=first[::-1], at_random=at_random)
    assert (other.mark == stream.mark) == bool((other.order == stream.order).all())


def test_an_order_of_an_order() -> None:
    split = split_of([np.arange(50)[:, None]], np.arange(50))
    one, two = np.random.default_rng(0).permutation(50), np.random.default_rng(1).permutation(50)
    twice = reordered(reordered(split, one), two)
    assert twice.batch(0, 50)[0][0][:, 0].tolist() == one[two].tolist()
    assert twice.batch(0, 50)[1].tolist() == one[two].tolist()


@given(
    st.integers(1, 3000),
    st.integers(1, 200),
    st.none() | st.integers(1, 150),
    st.data(),
)
def test_batches_are_the_same_whichever_looks_they_are_between(
    samples: int, batch_size: int, fixed: int | None, data: st.DataObject
) -> None:
    stream = stream_of(np.zeros(samples, dtype=np.intp), 0, batch_size, fixed)
    looks = stream.looks
    assert looks == looks_of(samples, fixed)
    whole = stream.bounds(0, samples)
    assert [at for start, stop in whole for at in range(start, stop)] == list(range(samples))
    assert all(stop - start <= (fixed or batch_size) for start, stop in whole)
    if fixed:
        # Only the very last is filled up.
        assert all(stop - start == fixed for start, stop in whole[:-1])
    cuts = sorted(data.draw(st.sets(st.sampled_from(looks))) | {0, samples})
    parts = [stream.bounds(a, b) for a, b in pairwise(cuts)]
    assert [each for part in parts for each in part] == whole
    seen, found = 0, []
    while seen < samples:
        seen = stream.next_look(seen)
        found.append(seen)
    assert tuple(found) == looks


def test_looks_depend_on_the_number_of_samples_alone() -> None:
    one = engine_of(CLASSES.model(), CLASSES.split(200), seed=1)
    other = engine_of(CLASSES.model(), CLASSES.split(200, seed=5), batch_size=7, seed=2)
    assert one.stream.looks == other.stream.looks == looks_of(200)
    assert (one.stream.order != other.stream.order).any()


def test_the_hardest_samples_by_the_margin_and_the_wrong_ones_first() -> None:
    model, split = CLASSES.model(), CLASSES.split(300)
    stream = engine_of(model, split).stream
    found = shown(CLASSES, model, split)
    assert found.hits is not None
    assert found.logs is not None
    members = np.empty(300, dtype=int)
    members[stream.order] = stream.members
    wrong = ~found.hits[:, 0]
    assert (members[wrong] == 0).all()
    assert (members[~wrong] > 0).all()
    top = np.sort(found.logs[:, 0], axis=1)
    margins = (top[:, -1] - top[:, -2])[~wrong]
    assert (np.diff(members[~wrong][np.argsort(margins)]) >= 0).all()
    assert stream.strata.sizes == tuple(np.bincount(members, minlength=STRATA))


def test_elsewhere_the_loss_says_what_is_hard() -> None:
    scene = next(each for each in SCENES if each.name == "tagger")
    model, split = scene.model(), scene.split(120)
    stream = engine_of(model, split).stream
    found = shown(scene, model, split)
    hardness = (found.losses / found.answers)[stream.order]
    assert (np.diff(stream.members[np.argsort(-hardness)]) >= 0).all()
    assert stream.strata.scale == pytest.approx(120 / found.answers.sum())


def test_a_preview_is_of_the_first_samples() -> None:
    engine = engine_of(CLASSES.model(), CLASSES.split(150))
    seen: list[np.ndarray] = []
    engine._model.module.get_submodule("0").register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].numpy().copy())
    )
    moments: list[int] = []
    told = measured(engine, [500_000], WHOLE, on_dense=lambda: moments.append(len(seen)))
    assert told[0].finding.preview
    first = engine.stream.split.cast([torch.float64]).batch(0, PREVIEW)[0][0].numpy()
    batches = [each for each in seen[: moments[0]] if len(each) == PREVIEW]
    assert any((each == first).all() for each in batches)
    labels = CLASSES.split(150).labels
    drawn = first_samples(labels, 150, PREVIEW, 0)
    assert (engine.stream.order[:PREVIEW] == drawn).all()


def test_dense_outputs_beyond_the_room_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []

    def dense(room: int) -> list[tuple[object, ...]]:
        monkeypatch.setattr(streams, "_REFERENCE_BYTES", room)
        model, split = CLASSES.model(), CLASSES.split(100)
        engine = engine_of(model, split)
        stream = engine.stream

        def run(inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
            runs.append(1)
            return model.module(*inputs)

        along = DenseStream(model, stream, engine.objective, run)
        found = []
        with torch.inference_mode():
            for bounds in [*stream.bounds(0, 100), *stream.bounds(0, 100)]:
                batch = along.batch(*bounds)
                assert batch.right is not None
                found.append((batch.answers.tolist(), batch.right.tolist(), batch.losses.tolist()))
                assert batch.onehot.argmax(1).tolist() == stream.members[slice(*bounds)].tolist()
        return found

    kept = dense(2**20)
    once = len(runs)
    again = dense(0)
    assert kept == again
    assert len(runs) - once == 2 * once


def test_right_answers_of_a_sample() -> None:
    hits = np.random.default_rng(0).random((3, 7, 2, 4)) < 0.5
    expected = [[int(hits[row, at].sum()) for at in range(7)] for row in range(3)]
    assert right_of(hits).tolist() == expected
    assert right_of(hits[:, :, 0, 0]).tolist() == hits[:, :, 0, 0].astype(int).tolist()
