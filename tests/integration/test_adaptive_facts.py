"""Adaptive analyses through the real recipe: what is stored, gone on from, and never redone."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from app.domain.errors import ChildFailed
from app.domain.levels import to_level
from app.domain.point_facts import PointReader
from app.domain.stream_order import PREVIEW
from app.domain.words import JobState
from app.settings import Settings
from app.store import analyses, datasets, events, known, models, points, queue
from app.store.blobs import Blobs
from app.store.store import Store
from app.store.tables import Analysis, Baseline, Dataset, Job, Outcome
from tests.integration.office import empty_database
from tests.support.sample import Sample
from tests.support.walls import FakeWalls
from worker.context import JobContext
from worker.crew import Crew
from worker.sandbox.walls import Limits, Result, Walls
from worker.tasks import TASKS

TUNE = 1500
LEVELS = [300_000, 600_000, 800_000, 900_000]


@pytest.fixture(scope="module")
def noisy(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's digits, blurred by noise, so that the network is often unsure."""
    generator = np.random.default_rng(5)
    pick = generator.integers(0, len(sample.arrays["x_tune"]), TUNE)
    noise = generator.normal(0, 3.0, (TUNE, *sample.arrays["x_tune"].shape[1:]))
    x = np.clip(np.round(sample.arrays["x_tune"][pick] + noise), 0, 16).astype(np.uint8)
    arrays = dict(sample.arrays) | {"x_tune": x, "y_tune": sample.arrays["y_tune"][pick]}
    path = tmp_path_factory.mktemp("noisy") / "noisy.npz"
    np.savez(path, **arrays)
    return path


class Interrupted(FakeWalls):
    """Runs recipes in this process. `after`: the child is lost after so many messages of points."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.after: int | None = None
        self.told = 0
        self.hook: Callable[[], None] = lambda: None

    def run(
        self,
        recipe: str,
        arguments: Mapping[str, Any],
        files: Mapping[str, Path],
        *,
        on_message: Callable[[str, dict[str, Any], Path], None],
        should_stop: Callable[[], bool] = lambda: False,
        limits: Limits | None = None,
    ) -> Result:
        def listen(kind: str, body: dict[str, Any], folder: Path) -> None:
            on_message(kind, body, folder)
            if kind == "points":
                self.told += 1
                self.hook()
                if self.after is not None and self.told >= self.after:
                    lost = ChildFailed("It was killed.")
                    lost.signal = 9
                    raise lost

        return super().run(
            recipe, arguments, files, on_message=listen, should_stop=should_stop, limits=limits
        )


class TwoChildren(Crew):
    def processes(self) -> int:
        return 2


def queue_is_waiting(desk: Desk) -> bool:
    with desk.store.read() as session:
        return queue.counts(session)[JobState.QUEUED] > 0


class Desk:
    """A database with the sample's model and the noisy data set, imported."""

    def __init__(self, data_dir: Path, sample: Sample, data: Path, children: int = 1) -> None:
        self.settings = Settings(data_dir=data_dir, lease_seconds=60.0)
        self.settings.make_private()
        (data_dir / "prunescope.db").write_bytes(empty_database())
        self.store = Store.open(self.settings.database_url)
        self.blobs = Blobs(self.settings.blob_url, data_dir)
        self.walls = Interrupted(data_dir / "children")
        self.crew = None
        if children == 2:
            self.crew = TwoChildren(self.store, self.settings, cast(Walls, self.walls))
        self.model_id = self._upload(models, "pt2", sample.model_path)
        self.dataset_id = self._upload(datasets, "npz", data)
        self.work()
        self.work()

    def _upload(self, noun: Any, file_format: str, path: Path) -> int:
        with self.blobs.stage() as staged:
            staged.write(path.read_bytes())
            sha256, size = self.blobs.commit(staged)
        with self.store.write() as session:
            row = noun.create(
                session, self.blobs, name="x", format=file_format, sha256=sha256, bytes=size
            )
        return row.id

    def analyse(self, **how: Any) -> int:
        with self.store.write() as session:
            wanted = {"levels": LEVELS, "units": ["stem.conv.weight", "head.weight"]} | how
            row = analyses.create(
                session, model_id=self.model_id, dataset_id=self.dataset_id, **wanted
            )
        return row.id

    def work(self) -> None:
        """Do the next job, to its end or to whatever it raises."""
        lease = queue.claim(self.store, 1)
        assert lease is not None
        context = JobContext(
            self.store, self.blobs, self.settings, cast(Walls, self.walls), lease, crew=self.crew
        )
        try:
            TASKS[lease.kind](context)
        except ChildFailed as error:
            with queue.fenced(self.store, lease) as session:
                queue.retry_or_fail(session, lease, error.as_dict(), max_attempts=3)
            raise
        with queue.fenced(self.store, lease) as session:
            queue.finish(session, lease)

    def table(self, analysis_id: int) -> dict[tuple[str, str, int], dict[str, Any]]:
        """The points as the API shows them."""
        with self.store.read() as session:
            row = analyses.get(session, analysis_id)
            reader = self.reader(session, row)
            return {
                (each.unit, each.criterion, each.level): reader.json(
                    reader.fresh(points.facts_of(each))
                )
                for each in points.for_analysis(session, row)
            }

    def reader(self, session: Any, row: Analysis) -> PointReader:
        dataset = session.get_one(Dataset, row.dataset_id)
        return known.reader_of(row, dataset, analyses.baseline(session, row))

    def outcomes(self, analysis_id: int) -> dict[tuple[str, str, int], tuple[int, bytes | None]]:
        with self.store.read() as session:
            context = analyses.get(session, analysis_id).context
            assert context is not None
            units = ["", "stem.conv.weight", "head.weight"]
            found = points.outcomes(session, context, units)
        return {cell: (row.samples, row.hits) for cell, row in found.items()}


@pytest.fixture
def desk(tmp_path: Path, sample: Sample, noisy: Path) -> Iterator[Desk]:
    opened = Desk(tmp_path / "data", sample, noisy)
    yield opened
    opened.store.dispose()


def naive(sample: Sample, data: Path, unit: str, level: int) -> np.ndarray:
    """Right answers [samples] of the pruned network, in plain torch."""
    from worker.sample import DigitsNet

    with np.load(data) as arrays:
        x = torch.from_numpy(arrays["x_tune"]).float() * float(arrays["scale"])
        y = arrays["y_tune"]
    state = {name: value.clone() for name, value in sample.network.state_dict().items()}
    if unit:
        flat = state[unit].flatten().numpy()
        order = sorted(range(flat.size), key=lambda i: (abs(float(flat[i])), i))
        flat[order[: round(level / 1e6 * flat.size)]] = 0.0
        state[unit] = torch.from_numpy(flat.reshape(tuple(state[unit].shape)))
    clone = DigitsNet()
    clone.load_state_dict(state)
    with torch.inference_mode():
        return (clone.eval()(x).argmax(1).numpy() == y).astype(bool)


def test_estimates_hold_the_truth_and_exact_points_are_it(
    desk: Desk, sample: Sample, noisy: Path
) -> None:
    adaptive = desk.analyse(evaluation={"half_width": 0.02})
    desk.work()
    dense = naive(sample, noisy, "", 0)
    table = desk.table(adaptive)
    assert len(table) == 8
    assert all(point["settled"] for point in table.values())
    assert any(not point["whole"] for point in table.values()), "nothing was saved"
    inside = 0
    for (unit, _, level), point in table.items():
        truth = dense.mean() - naive(sample, noisy, unit, level).mean()
        inside += point["drop_low"] - 1e-9 <= truth <= point["drop_high"] + 1e-9
        assert abs(truth - point["drop"]) <= point["drop_high"] - point["drop_low"] + 1e-9
        assert point["accuracy"] == pytest.approx(dense.mean() - point["drop"])
        if point["whole"]:
            assert point["drop"] == pytest.approx(truth)
        else:
            assert point["drop_high"] - point["drop_low"] <= 2 * max(0.02, 0.1 * point["drop"])
    assert inside >= len(table) - 1, "95 % of them; tests of the mathematics count properly"
    exact = desk.analyse(evaluation={"mode": "exact"})
    desk.work()
    for (unit, _, level), point in desk.table(exact).items():
        right = naive(sample, noisy, unit, level)
        assert (point["whole"], point["samples"]) == (True, TUNE)
        assert round(point["accuracy"] * TUNE) == right.sum()
    assert desk.table(adaptive).keys() == table.keys()
    assert all(point["whole"] for point in desk.table(adaptive).values()), "facts are shared"


def test_stored_answers_are_the_networks(desk: Desk, sample: Sample, noisy: Path) -> None:
    """In the order of the stream, which the dense network's own answers and strata give away."""
    exact = desk.analyse(evaluation={"mode": "exact"}, units=["head.weight"])
    desk.work()
    outcomes = desk.outcomes(exact)
    bits = {
        cell: np.unpackbits(np.frombuffer(zlib.decompress(hits or b""), np.uint8), count=TUNE)
        for cell, (samples, hits) in outcomes.items()
        if samples == TUNE
    }
    dense = naive(sample, noisy, "", 0)
    assert bits[points.DENSE].sum() == dense.sum()
    for level in LEVELS:
        right = naive(sample, noisy, "head.weight", level)
        own = bits["head.weight", "magnitude", level]
        assert own.sum() == right.sum()
        both = np.bincount(2 * bits[points.DENSE] + own, minlength=4)
        assert both.tolist() == np.bincount(2 * dense + right, minlength=4).tolist()


@pytest.mark.parametrize("children", [1, 2])
@pytest.mark.parametrize("mode", ["adaptive", "exact"])
def test_a_killed_analysis_ends_as_an_unkilled_one(
    tmp_path: Path, sample: Sample, noisy: Path, mode: str, children: int
) -> None:
    def finished(name: str, *, killed: bool) -> tuple[Any, Any, int]:
        desk = Desk(tmp_path / name, sample, noisy, children)
        number = desk.analyse(evaluation={"mode": mode}, units=None)
        kills = [1, 2] if killed else []
        for desk.walls.after in kills:
            desk.walls.told = 0
            with suppress(ChildFailed):
                desk.work()
                break  # little was left, and told at once
        desk.walls.after = None
        if queue_is_waiting(desk):
            desk.work()
        asked = sum(recipe == "analyse" for recipe, _, _ in desk.walls.asked)
        found = desk.table(number), desk.outcomes(number), asked
        desk.store.dispose()
        return found

    calm, stormy = finished("calm", killed=False), finished("stormy", killed=True)
    assert stormy[0] == calm[0]
    assert stormy[1] == calm[1]
    assert calm[2] == children
    # A child that told all it had before it was lost leaves nothing to ask for.
    assert stormy[2] >= calm[2]


def test_a_sharper_goal_goes_on_where_the_last_one_stopped(desk: Desk) -> None:
    number = desk.analyse(evaluation={"half_width": 0.05, "relative": 0.3})
    desk.work()
    before = desk.table(number)
    parts = [cell for cell, point in before.items() if not point["whole"]]
    assert parts
    samples = sum(point["samples"] for point in before.values())
    unit = parts[0][0]
    goal = {"units": [unit], "sparsities": None, "half_width": 0.02, "exact": False}
    with desk.store.write() as session:
        analyses.sharpen(session, number, goal)
    desk.work()
    (_, arguments, _) = desk.walls.asked[-1]
    assert {cell[0] for cell in arguments["cells"]} <= {unit}
    states = {(each["unit"], each["criterion"], each["level"]) for each in arguments["known"]}
    assert states == {cell for cell in parts if cell[0] == unit} - narrower(before, 0.02)
    after = desk.table(number)
    for cell, point in after.items():
        if cell[0] == unit:
            assert point["whole"] or point["drop_high"] - point["drop_low"] <= 0.04 + 1e-12
        else:
            assert point == before[cell]
    with desk.store.read() as session:
        job = session.get_one(Job, analyses.get(session, number).job_id)
    counted = job.progress["samples"]
    extra = sum(point["samples"] for point in after.values()) - samples
    assert counted <= samples + extra + 8 * PREVIEW, "nothing was seen twice"


def narrower(table: Mapping[Any, Any], half_width: float) -> set[Any]:
    return {
        cell
        for cell, point in table.items()
        if (point["drop_high"] - point["drop_low"]) / 2 <= half_width
    }


def test_what_is_known_is_not_measured_again(desk: Desk) -> None:
    desk.analyse()
    desk.work()
    asked = len(desk.walls.asked)
    second = desk.analyse()
    desk.work()
    assert len(desk.walls.asked) == asked
    with desk.store.read() as session:
        row = analyses.get(session, second)
        assert row.known == 8
        assert session.get_one(Job, row.job_id).progress["done"] == 8
    wider = desk.analyse(levels=[*LEVELS, 950_000])
    desk.work()
    (_, arguments, _) = desk.walls.asked[-1]
    assert [(unit, levels) for unit, _, levels in arguments["cells"]] == [
        ("stem.conv.weight", [950_000]), ("head.weight", [950_000]),
    ]  # fmt: skip
    assert len(desk.table(wider)) == 10


def test_a_knee_is_that_of_the_exact_curves(desk: Desk) -> None:
    levels = [level * 50_000 for level in range(1, 20)]
    evaluation = {"mode": "knee", "tolerance": 0.05}
    search = desk.analyse(levels=levels, evaluation=evaluation)
    desk.work()
    looked_at = desk.table(search)
    beyond = [point for point in looked_at.values() if not point["preview"]]
    assert 2 <= len(beyond) < 2 * 19 // 2, "most are left at their preview"
    exact = desk.analyse(levels=levels, evaluation={"mode": "exact"})
    # As they were found, before the exact ones take their place.
    with desk.store.read() as session:
        row = analyses.get(session, search)
        seen = [points.facts_of(each) for each in points.for_analysis(session, row)]
    desk.work()
    truth = desk.table(exact)
    for unit in ("stem.conv.weight", "head.weight"):
        curve = [(level, truth[unit, "magnitude", level]["drop"]) for level in levels]
        within = []
        for level, drop in curve:
            if drop > 0.05:
                break
            within.append(level)
        found = [
            each.level
            for each in seen
            if each.unit == unit and each.level in levels
            if each.samples > PREVIEW and (each.drop or 0.0) <= 0.05
        ]
        assert abs(max(found, default=0) - max(within, default=0)) <= 50_000


def test_refined_levels_lie_around_the_tolerated_drop(desk: Desk) -> None:
    number = desk.analyse(
        evaluation={"mode": "adaptive", "refine": 3, "tolerance": 0.05}, units=["head.weight"]
    )
    desk.work()
    table = desk.table(number)
    extra = sorted(level for _, _, level in table if level not in LEVELS)
    assert len(extra) == 3
    with desk.store.read() as session:
        assert len(analyses.get(session, number).extra or []) == 3
    curve = [
        (0, 0.0),
        *((level, table["head.weight", "magnitude", level]["drop"]) for level in LEVELS),
    ]
    crossing = next(i for i, (_, drop) in enumerate(curve) if drop > 0.05)
    low, high = curve[crossing - 1][0], curve[crossing][0]
    assert all(low < level < high for level in extra)
    asked = len(desk.walls.asked)
    again = desk.analyse(
        evaluation={"mode": "adaptive", "refine": 3, "tolerance": 0.05}, units=["head.weight"]
    )
    desk.work()
    assert len(desk.walls.asked) == asked + 1
    assert desk.table(again) == table, (
        "the same levels are chosen again, and none is measured twice"
    )


def test_a_knee_is_refined_once(desk: Desk) -> None:
    """Levels of its own lie on the knee's step; what is made sharper later gets no more of them."""
    number = desk.analyse(
        evaluation={"mode": "knee", "refine": 2, "tolerance": 0.05}, units=["head.weight"]
    )
    desk.work()
    found = {level: point["drop"] for (_, _, level), point in desk.table(number).items()}
    extra = [level for level in found if level not in LEVELS]
    assert len(extra) == 2
    below = max(level for level in (0, *LEVELS) if level < min(extra))
    above = min(level for level in LEVELS if level > max(extra))
    assert all(below < level < above for level in extra)
    assert found[above] > 0.05
    with desk.store.write() as session:
        analyses.sharpen(
            session, number,
            {"units": None, "sparsities": None, "half_width": 0.004, "exact": False},
        )  # fmt: skip
    desk.work()
    after = {level for _, _, level in desk.table(number)}
    assert {level for level in after if level not in LEVELS} == set(extra)


def test_a_changed_stream_voids_only_what_depends_on_it(desk: Desk) -> None:
    """Another machine may find other margins: parts begin anew, whole points stay facts."""
    number = desk.analyse(evaluation={"half_width": 0.05, "relative": 0.3})
    desk.work()
    before = desk.table(number)
    with desk.store.write() as session:
        context = analyses.get(session, number).context
        baseline = session.get_one(Baseline, context)
        sizes = list(baseline.strata["sizes"])
        baseline.strata = baseline.strata | {"sizes": [sizes[0] - 1, sizes[1] + 1, *sizes[2:]]}
        analyses.sharpen(
            session, number,
            {"units": None, "sparsities": None, "half_width": 0.03, "exact": False},
        )  # fmt: skip
    desk.work()
    after = desk.table(number)
    assert after.keys() == before.keys()
    assert all(point["settled"] for point in after.values())
    with desk.store.read() as session:
        assert session.get_one(Baseline, context).strata["sizes"] == sizes
        assert session.get_one(Outcome, (context, *points.DENSE)).samples == TUNE


def cell_of(point: Mapping[str, Any]) -> tuple[str, str, int]:
    return point["unit"], point["criterion"], to_level(point["sparsity"])


def test_events_tell_what_the_table_shows_in_the_end(desk: Desk) -> None:
    number = desk.analyse()
    desk.work()
    latest: dict[Any, Any] = {}
    with desk.store.read() as session:
        for event in events.read_after(session, f"analysis:{number}", 0, limit=10_000):
            if event.type == "points":
                for point in event.data["points"]:
                    latest[point["unit"], point["criterion"], round(point["sparsity"] * 1e6)] = (
                        point
                    )
    table = desk.table(number)
    assert latest.keys() == table.keys()
    for (unit, criterion, _), point in latest.items():
        assert (
            point
            == {"unit": unit, "criterion": criterion}
            | table[unit, criterion, round(point["sparsity"] * 1e6)]
        )
