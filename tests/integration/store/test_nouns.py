"""Models, data sets, analyses, points, plans, experiments and workers: made, found, listed."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select

from app.domain.errors import Conflict, InvalidInput, NotFound
from app.domain.goals import DEFAULT_EVALUATION, Goals
from app.domain.metrics import Kind
from app.domain.point_facts import Dense, PointReader
from app.domain.words import JobState, Status
from app.store import (
    analyses,
    datasets,
    experiments,
    models,
    plans,
    points,
    queue,
    workers,
)
from app.store.tables import Analysis, Baseline, Job, Measurement, Model, Outcome, Point
from tests.integration.store.conftest import HandClock
from tests.integration.store.things import Things, a_point


def test_an_upload_comes_with_its_import(things: Things, clock: HandClock) -> None:
    model, dataset = things.importing_model(), things.importing_dataset()
    assert (model.status, model.created_at) == (Status.IMPORTING, clock.time)
    for row, kind, payload in (
        (model, "import-model", {"model_id": model.id}),
        (dataset, "import-dataset", {"dataset_id": dataset.id}),
    ):
        job = things.job_now(row.job_id)
        assert (job.kind, job.payload, job.state) == (kind, payload, JobState.QUEUED)
        assert (job.subject_kind, job.subject_id) == (kind.removeprefix("import-"), row.id)


def test_an_analysis_comes_with_its_job(things: Things) -> None:
    analysis = things.analysis(levels=[500_000, 100_000, 500_000])
    assert analysis.levels == [100_000, 500_000]
    assert analysis.evaluation == dict(DEFAULT_EVALUATION)
    assert (analysis.units, analysis.goals, analysis.known) == (None, None, 0)
    job = things.job_now(analysis.job_id)
    assert (job.kind, job.payload) == ("analyse", {"analysis_id": analysis.id})
    assert job.topic == f"analysis:{analysis.id}"


def test_only_what_is_ready_can_be_analysed(things: Things) -> None:
    with pytest.raises(Conflict, match=r"Model \d+ is still being imported"):
        things.analysis(model=things.importing_model())
    dataset = things.importing_dataset()
    while (lease := queue.claim(things.store, 1)) is not None:
        with queue.fenced(things.store, lease) as session:
            queue.fail(session, lease, {"code": "x", "message": "No labels.", "hint": ""})
    with pytest.raises(Conflict, match=r"Data set .* could not be imported\. No labels\."):
        things.analysis(dataset=dataset)
    with things.store.read() as session:
        assert session.scalars(select(Analysis)).all() == []
        assert session.scalars(select(Job).where(Job.kind == "analyse")).all() == []


def test_what_is_not_there_is_said(things: Things) -> None:
    with things.store.write() as session:
        for get, noun in (
            (models.get, "model"),
            (datasets.get, "data set"),
            (analyses.get, "analysis"),
            (plans.get, "plan"),
            (experiments.get, "experiment"),
            (queue.get, "job"),
        ):
            with pytest.raises(NotFound, match=f"There is no {noun} 41"):
                get(session, 41)
        with pytest.raises(NotFound, match="no model 41"):
            analyses.create(session, model_id=41, dataset_id=1, levels=[1])
        with pytest.raises(NotFound, match="no analysis 41"):
            plans.create(session, analysis_id=41, criterion="m", sparsities={}, predicted={})
        with pytest.raises(NotFound, match="no plan 41"):
            plans.request_measurement(session, 41, "tune")
        with pytest.raises(NotFound, match="no plan 41"):
            experiments.create(session, plan_id=41, settings={})


def test_pages_stay_right_while_rows_come_and_go(things: Things) -> None:
    ids = [things.model().id for _ in range(5)]
    with things.store.read() as session:
        first = models.listing(session, limit=2)
    things.model()
    models.delete(things.store, things.blobs, ids[2])
    with things.store.read() as session:
        second = models.listing(session, limit=2, cursor=first.next_cursor)
        assert [row.id for row in first.items] == [ids[4], ids[3]]
        assert [row.id for row in second.items] == [ids[1], ids[0]]
        assert second.next_cursor is None
        for cursor in ("x", "-1", "1.5", "", "١", "9" * 30):
            with pytest.raises(InvalidInput, match="cursor"):
                models.listing(session, cursor=cursor)
        for limit in (0, 501):
            with pytest.raises(InvalidInput, match="items"):
                models.listing(session, limit=limit)


def test_lists_of_one_parent(things: Things) -> None:
    model, dataset = things.model(), things.dataset()
    first = things.analysis(model, dataset)
    second = things.analysis(dataset=dataset)
    plan, other = things.plan(first), things.plan(second)
    experiment = things.experiment(plan)
    things.experiment(other)
    with things.store.read() as session:
        assert ids(analyses.listing(session, model_id=model.id)) == [first.id]
        assert ids(analyses.listing(session, dataset_id=dataset.id)) == [second.id, first.id]
        assert ids(datasets.listing(session))[0] == second.dataset_id
        assert ids(plans.listing(session, analysis_id=first.id)) == [plan.id]
        assert ids(plans.listing(session)) == [other.id, plan.id]
        assert ids(experiments.listing(session, plan_id=plan.id)) == [experiment.id]
        assert set(models.get_many(session, {model.id, 999})) == {model.id}
        assert set(datasets.get_many(session, {dataset.id, 999})) == {dataset.id}
        assert set(plans.get_many(session, {plan.id, 999})) == {plan.id}


def ids(page) -> list[int]:
    return [row.id for row in page.items]


def test_a_point_gives_way_only_to_one_of_more_samples(things: Things, clock: HandClock) -> None:
    stored_at = clock.time
    with things.store.write() as session:
        assert points.add(session, [a_point("c"), a_point("c", level=1)]) == 2
    clock.forward(10)
    with things.store.write() as session:
        again = [a_point("c", correct=1, accuracy=0.01), a_point("c", unit="b.weight")]
        assert points.add(session, again) == 1
        assert points.add(session, []) == 0
    with things.store.read() as session:
        assert set(points.known(session, "c")) == {
            ("a.weight", "magnitude", 500_000),
            ("a.weight", "magnitude", 1),
            ("b.weight", "magnitude", 500_000),
        }
        first = session.get_one(Point, ("c", "a.weight", "magnitude", 500_000))
    assert (first.correct, first.created_at) == (80, stored_at)
    with things.store.write() as session:
        assert points.add(session, [a_point("c", samples=99, correct=1)]) == 0
        assert points.add(session, [a_point("c", samples=101, correct=81)]) == 1
    with things.store.read() as session:
        first = session.get_one(Point, ("c", "a.weight", "magnitude", 500_000))
    assert (first.samples, first.correct) == (101, 81)
    assert (first.created_at, first.updated_at) == (stored_at, clock.time)


def test_writers_at_once_leave_the_point_of_most_samples(things: Things) -> None:
    """Threads that write the same points from ever more samples, in any order."""
    wanted = [(level, samples) for level in range(1, 5) for samples in range(1, 31)]
    random.Random(0).shuffle(wanted)

    def write(some: list[tuple[int, int]]) -> None:
        for level, samples in some:
            with things.store.write() as session:
                points.add(session, [a_point("c", level=level, samples=samples, correct=samples)])
                row = Outcome(context="c", unit="a.weight", criterion="magnitude", level=level)
                row.samples, row.hits = samples, bytes([samples])
                points.add_outcomes(session, [row])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, [wanted[part::4] for part in range(4)]))
    with things.store.read() as session:
        rows = points.known(session, "c").values()
        assert {(row.level, row.samples, row.correct) for row in rows} == {
            (level, 30, 30) for level in range(1, 5)
        }
        outcomes = points.outcomes(session, "c", ["a.weight"]).values()
        assert {(row.samples, row.hits) for row in outcomes} == {(30, bytes([30]))}


def test_what_holds_in_one_order_of_samples_can_be_forgotten(things: Things) -> None:
    with things.store.write() as session:
        whole = [a_point("c", of=100), a_point("c", level=2)]
        points.add(session, [*whole, a_point("c", level=1, of=200), a_point("d", of=200)])
        session.add(Outcome(context="c", unit="", criterion="", level=0, samples=100))
        session.add(
            Baseline(context="c", samples=9, correct=9, loss=0, accuracy=1, low=0.7, high=1)
        )
    with things.store.write() as session:
        points.forget_parts(session, "c")
    with things.store.read() as session:
        assert {level for _, _, level in points.known(session, "c")} == {500_000, 2}
        assert len(points.known(session, "d")) == 1
        assert points.outcome(session, "c", points.DENSE) is None
        assert session.get(Baseline, "c") is None


def test_a_baseline_is_stored_once(things: Things) -> None:
    def dense(correct: int) -> Baseline:
        return Baseline(
            context="c", samples=9, correct=correct, loss=0.1, accuracy=correct / 9, low=0, high=1
        )

    with things.store.write() as session:
        assert points.add_baseline(session, dense(8)) is True
        assert points.add_baseline(session, dense(3)) is False
    with things.store.read() as session:
        assert session.get_one(Baseline, "c").correct == 8


def test_an_analysis_shows_the_facts_of_its_grid_whoever_measured_them(things: Things) -> None:
    model, dataset = things.model(), things.dataset()
    first = things.analysis(model, dataset, units=["a.weight"])
    second = things.analysis(model, dataset, levels=[500_000, 750_000])
    with things.store.write() as session:
        assert points.for_analysis(session, first) == []
        for analysis in (first, second):
            analyses.get(session, analysis.id).context = "c"
        points.add(
            session,
            [
                a_point("c", "b.weight"),
                a_point("c", "a.weight", 500_000),
                a_point("c", "a.weight", 250_000),
                a_point("c", "a.weight", 750_000),
                a_point("c", "a.weight", 250_000, criterion="random"),
                a_point("d", "a.weight", 250_000),
            ],
        )
        session.add(
            Baseline(context="c", samples=9, correct=9, loss=0, accuracy=1, low=0.7, high=1)
        )
    with things.store.read() as session:
        rows = [analyses.get(session, analysis.id) for analysis in (first, second)]
        found = points.for_analyses(session, rows)
        assert [(p.unit, p.level) for p in found[first.id]] == [
            ("a.weight", 250_000),
            ("a.weight", 500_000),
        ]
        assert [(p.unit, p.level) for p in found[second.id]] == [
            ("a.weight", 500_000),
            ("a.weight", 750_000),
            ("b.weight", 500_000),
        ]
        dense = analyses.baseline(session, rows[0])
        assert dense is not None
        assert dense.samples == 9
        assert set(analyses.baselines(session, rows)) == {"c"}


def test_cells_of_a_refinement_are_of_one_analysis_alone(things: Things) -> None:
    model, dataset = things.model(), things.dataset()
    analysis, other = (things.analysis(model, dataset) for _ in range(2))
    with things.store.write() as session:
        row = analyses.get(session, analysis.id)
        row.extra = [["a.weight", "magnitude", 300_000]]
        context = row.context
        assert context == analyses.get(session, other.id).context
        for unit in ("a.weight", "b.weight"):
            points.add(session, [a_point(context, unit, level) for level in (250_000, 300_000)])
    with things.store.read() as session:
        rows = points.for_analysis(session, analyses.get(session, analysis.id))
        assert [(row.unit, row.level) for row in rows] == [
            ("a.weight", 250_000), ("a.weight", 300_000), ("b.weight", 250_000),
        ]  # fmt: skip
        rows = points.for_analysis(session, analyses.get(session, other.id))
        assert {row.level for row in rows} == {250_000}


def test_sharpening_queues_the_job_again(things: Things) -> None:
    analysis = things.analysis()
    goal = {"units": None, "sparsities": None, "half_width": 0.001, "exact": False}
    lease = things.claim()
    with things.store.write() as session:
        analyses.sharpen(session, analysis.id, goal)
        assert analyses.sharpen(session, analysis.id, goal).goals == [goal]
    assert queue.handing_back(things.store, lease), "its worker should look again"
    with queue.fenced(things.store, lease) as session:
        queue.finish(session, lease)
    assert things.job_now(analysis.job_id).state == JobState.QUEUED
    lease = things.claim()
    assert not queue.handing_back(things.store, lease)
    with queue.fenced(things.store, lease) as session:
        queue.finish(session, lease)
    assert things.job_now(analysis.job_id).state == JobState.DONE
    with things.store.write() as session:
        analyses.sharpen(session, analysis.id, goal | {"exact": True})
    assert things.job_now(analysis.job_id).state == JobState.QUEUED
    with things.store.write() as session, pytest.raises(NotFound):
        analyses.sharpen(session, 41, goal)


def test_the_figures_of_a_point() -> None:
    top5 = {"top5": {"value": 0.95, "low": 0.9, "high": 0.98}}
    point = a_point("c", level=333_333, size=7, removed=2, metrics=top5)
    reader = PointReader(Goals.of(None), None)
    assert reader.told(points.facts_of(point)) == {
        "unit": "a.weight",
        "criterion": "magnitude",
        "sparsity": 0.333333,
        "achieved": 2 / 7,
        "accuracy": 0.8,
        "loss": 0.5,
        "low": 0.7,
        "high": 0.9,
        "samples": 100,
        "of": 100,
        "whole": True,
        "interval": "population",
        "settled": True,
        "preview": False,
        "drop": None,
        "drop_low": None,
        "drop_high": None,
        "kl": None,
        "flips": 9,
        "lost": 5,
        "gained": 2,
        "metrics": top5,
        "remark": None,
    }
    plain = reader.json(points.facts_of(a_point("c")))
    assert set(plain["metrics"]) == {"accuracy", "loss"}, "measured before there were any"
    dense = Dense(Kind.SINGLE_LABEL, 100, accuracy=0.83)
    fresh = PointReader(Goals.of(None), dense).fresh(points.facts_of(point))
    half = 1.959964 * (0.07 - 0.03**2) ** 0.5 / 10
    assert fresh.drop == pytest.approx(0.03)
    assert fresh.drop_low == pytest.approx(0.03 - half)
    assert fresh.drop_high == pytest.approx(0.03 + half)


def test_a_plan_keeps_the_order_of_its_units(things: Things) -> None:
    plan_id = things.plan().id
    with things.store.read() as session:
        assert list(plans.get(session, plan_id).sparsities) == ["b.weight", "a.weight"]


def test_one_measurement_job_at_a_time_for_a_split(things: Things) -> None:
    plan = things.plan()
    with things.store.write() as session:
        first = plans.request_measurement(session, plan.id, "tune")
        assert plans.request_measurement(session, plan.id, "tune").id == first.id
        assert plans.request_measurement(session, plan.id, "train").id != first.id
        queue.request_cancel(session, first.id)
        second = plans.request_measurement(session, plan.id, "tune")
    assert second.id != first.id
    assert second.payload == {"plan_id": plan.id, "split": "tune"}
    # What a person waits for goes before whole analyses.
    assert things.claim().kind == "measure"


def test_measurements_are_found_by_plan_and_split(things: Things) -> None:
    analysis = things.analysis()
    plan, other = things.plan(analysis), things.plan(analysis)
    with things.store.write() as session:
        for split, accuracy in (("tune", 0.5), ("train", 0.6), ("tune", 0.7)):
            session.add(a_measurement(plan.id, split, accuracy))
    with things.store.read() as session:
        latest = plans.find_measurement(session, plan.id, "tune")
        assert latest is not None
        assert latest.accuracy == 0.7
        assert plans.find_measurement(session, plan.id, "test") is None
        assert [m.accuracy for m in plans.measurements(session, plan.id)] == [0.5, 0.6, 0.7]
        several = plans.measurements_of(session, [plan.id, other.id])
        assert [len(several[plan.id]), len(several[other.id])] == [3, 0]
    shown = plans.measurement_json(latest)
    assert {"split", "accuracy", "loss", "low", "high", "samples", "confidence", "sparsity"} <= set(
        shown
    )
    assert shown["samples"] == 10


def a_measurement(plan_id: int, split: str, accuracy: float) -> Measurement:
    return Measurement(
        plan_id=plan_id,
        split=split,
        samples=10,
        correct=round(10 * accuracy),
        accuracy=accuracy,
        loss=0.1,
        low=0.0,
        high=1.0,
        confidence=0.95,
        sparsity=0.4,
        flips=0,
        lost=0,
        gained=0,
        baseline={"accuracy": 0.9},
    )


def an_epoch(epoch: int, accuracy: float) -> dict[str, float | int | None]:
    return {
        "step": 0,
        "epoch": epoch,
        "sparsity": 0.5,
        "train_loss": None,
        "tune_accuracy": accuracy,
        "tune_loss": 0.3,
        "tune_samples": 40,
        "low": 0.1,
        "high": 0.9,
        "learning_rate": 0.01,
    }


def test_a_resumed_experiment_says_everything_once(things: Things) -> None:
    experiment = things.experiment()
    with things.store.write() as session:
        run = experiments.ensure_run(session, experiment.id, "plan", 0, {"a.weight": 0.5})
        for epoch in (0, 1, 2):
            experiments.put_epoch(session, run.id, an_epoch(epoch, 0.1))
    with things.store.write() as session:  # the second attempt
        again = experiments.ensure_run(session, experiment.id, "plan", 0, {"a.weight": 0.9})
        assert (again.id, again.sparsities) == (run.id, {"a.weight": 0.5})
        other = experiments.ensure_run(session, experiment.id, "random", 1)
        for epoch in (2, 3):
            experiments.put_epoch(session, run.id, an_epoch(epoch, 0.7))
        with pytest.raises(ValueError, match="accuracy"):
            experiments.put_epoch(session, run.id, {"accuracy": 1.0})
    with things.store.read() as session:
        assert [r.name for r in experiments.runs(session, experiment.id)] == ["plan", "random"]
        path = [(e.epoch, e.tune_accuracy) for e in experiments.trajectory(session, run.id)]
        assert path == [(0, 0.1), (1, 0.1), (2, 0.7), (3, 0.7)]
        assert experiments.trajectories(session, [other.id]) == {other.id: []}
        assert experiments.get_run(session, experiment.id, "random").id == other.id
        with pytest.raises(NotFound, match=r"no run named 'best'.*plan, random"):
            experiments.get_run(session, experiment.id, "best")


def test_an_experiment_comes_with_its_job(things: Things) -> None:
    experiment = things.experiment()
    job = things.job_now(experiment.job_id)
    assert (job.kind, job.payload) == ("retrain", {"experiment_id": experiment.id})
    assert job.topic == f"experiment:{experiment.id}"


def test_workers_live_as_long_as_they_are_heard_of(things: Things, clock: HandClock) -> None:
    with things.store.write() as session:
        first = workers.register(session)
        second = workers.register(session, pid=7, host="elsewhere", isolation="landlock")
    clock.forward(20)
    with things.store.write() as session:
        workers.heartbeat(session, second)
    clock.forward(20)
    with things.store.read() as session:
        (seen,) = workers.live(session)
        assert (seen.id, seen.pid, seen.host) == (second, 7, "elsewhere")
        assert seen.isolation == "landlock"
        assert {w.id for w in workers.live(session, within_seconds=60)} == {first, second}
    with things.store.write() as session:
        workers.remove(session, second)
        assert workers.live(session) == []
    clock.time += timedelta(hours=2)
    with things.store.write() as session:
        third = workers.register(session)
        assert [w.id for w in workers.live(session, within_seconds=1e6)] == [third]


def test_a_worker_seen_dead_is_buried_and_its_job_free(things: Things) -> None:
    job = things.job()
    with things.store.write() as session:
        dead = workers.register(session, pid=4_000_000)
        alive = workers.register(session, pid=4_000_001)
    things.claim(worker=dead)
    assert workers.bury(things.store, 4_000_000) == 1
    assert workers.bury(things.store, 4_000_000) == 0
    assert things.job_now(job.id).state == JobState.QUEUED
    with things.store.read() as session:
        assert [w.id for w in workers.live(session)] == [alive]


def test_a_changed_model_says_when(things: Things) -> None:
    model = things.importing_model()
    with things.store.write() as session:
        session.get_one(Model, model.id).status = Status.READY
    with things.store.read() as session:
        changed = models.get(session, model.id)
    assert changed.updated_at != model.created_at
