"""Deleting takes along what it must, keeps what others need, and says what is in the way."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from app.domain.errors import Conflict, LeaseLost, NotFound
from app.store import analyses, datasets, events, experiments, models, plans, points, queue
from app.store.tables import Base, Baseline, Worker
from tests.integration.store.things import Things, a_point


def rows(things: Things) -> dict[str, int]:
    with things.store.read() as session:
        found = {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }
    return {name: count for name, count in found.items() if count}


def a_whole_project(things: Things):
    """One of everything, with facts, events and a checkpoint."""
    model, dataset = things.model(), things.dataset()
    analysis = things.analysis(model, dataset)
    plan = things.plan(analysis)
    experiment = things.experiment(plan)
    checkpoint, _ = things.blob(b"retrained weights")
    with things.store.write() as session:
        analyses.get(session, analysis.id).context = "c"
        points.add(session, [a_point("c"), a_point("c", level=250_000)])
        session.add(Baseline(context="c", samples=1, correct=1, accuracy=1, low=0, high=1))
        plans.request_measurement(session, plan.id, "tune")
        run = experiments.ensure_run(session, experiment.id, "plan", 0)
        run.checkpoint_sha256 = checkpoint
        experiments.put_epoch(
            session,
            run.id,
            {
                "step": 0,
                "epoch": 0,
                "sparsity": 0.5,
                "tune_accuracy": 0.5,
                "tune_samples": 4,
                "low": 0,
                "high": 1,
            },
        )
        events.publish(session, f"experiment:{experiment.id}", "epoch", {})
    return model, dataset, analysis, plan, experiment, checkpoint


def test_cascade_from_the_model_leaves_the_data_set_alone(things: Things) -> None:
    model, dataset, *_, checkpoint = a_whole_project(things)
    models.delete(things.store, things.blobs, model.id, cascade=True)
    assert rows(things) == {"dataset": 1, "job": 1}
    assert not things.blobs.exists(model.sha256)
    assert not things.blobs.exists(checkpoint)
    assert things.blobs.exists(dataset.sha256)
    datasets.delete(things.store, things.blobs, dataset.id)
    assert rows(things) == {}
    assert not things.blobs.exists(dataset.sha256)


def test_cascade_from_the_data_set_leaves_the_model_alone(things: Things) -> None:
    model, dataset, *_ = a_whole_project(things)
    datasets.delete(things.store, things.blobs, dataset.id, cascade=True)
    assert rows(things) == {"model": 1, "job": 1}
    assert things.blobs.exists(model.sha256)


def test_dependants_are_named_and_nothing_is_deleted(things: Things) -> None:
    model, dataset, analysis, plan, experiment, checkpoint = a_whole_project(things)
    before = rows(things)
    for delete, row, dependant in (
        (models.delete, model, f"analysis {analysis.id} depends on it"),
        (datasets.delete, dataset, f"analysis {analysis.id} depends on it"),
        (analyses.delete, analysis, f"plan {plan.id} depends on it"),
        (plans.delete, plan, f"experiment {experiment.id} depends on it"),
    ):
        with pytest.raises(Conflict, match=dependant):
            delete(things.store, things.blobs, row.id)
    assert rows(things) == before
    assert things.blobs.exists(checkpoint)


def test_many_dependants_are_named_shortly(things: Things) -> None:
    model, dataset = things.model(), things.dataset()
    made = [things.analysis(model, dataset).id for _ in range(7)]
    names = ", ".join(map(str, made[:5]))
    with pytest.raises(Conflict, match=f"analyses {names} and 2 more depend on it"):
        models.delete(things.store, things.blobs, model.id)


def test_one_by_one_from_the_leaves(things: Things) -> None:
    model, dataset, analysis, plan, experiment, _ = a_whole_project(things)
    for module, row in (
        (experiments, experiment),
        (plans, plan),
        (analyses, analysis),
        (models, model),
        (datasets, dataset),
    ):
        module.delete(things.store, things.blobs, row.id)
        with pytest.raises(NotFound):
            module.delete(things.store, things.blobs, row.id)
    assert rows(things) == {}


def test_facts_stay_while_another_analysis_shows_them(things: Things) -> None:
    model, dataset = things.model(), things.dataset()
    first, second = things.analysis(model, dataset), things.analysis(model, dataset)
    with things.store.write() as session:
        for analysis in (first, second):
            analyses.get(session, analysis.id).context = "c"
        points.add(session, [a_point("c"), a_point("other")])
    analyses.delete(things.store, things.blobs, first.id)
    with things.store.read() as session:
        assert len(points.known(session, "c")) == 1
    analyses.delete(things.store, things.blobs, second.id)
    with things.store.read() as session:
        assert points.known(session, "c") == {}
        assert len(points.known(session, "other")) == 1


def test_a_running_job_is_in_the_way_unless_all_of_it_shall_go(things: Things) -> None:
    analysis = things.analysis()
    lease = things.claim()
    with pytest.raises(Conflict, match=f"while job {analysis.job_id} is working on it"):
        analyses.delete(things.store, things.blobs, analysis.id)
    with queue.fenced(things.store, lease) as session:
        session.add(a_point("c", created_at=things.store.clock()))
    analyses.delete(things.store, things.blobs, analysis.id, cascade=True)
    with pytest.raises(LeaseLost):
        queue.heartbeat(things.store, lease)
    moment = things.store.clock()
    with pytest.raises(LeaseLost), queue.fenced(things.store, lease) as session:
        session.add(Worker(pid=1, host="late", started_at=moment, heartbeat_at=moment))
    assert "worker" not in rows(things)


def test_a_queued_job_just_goes_along(things: Things) -> None:
    model = things.importing_model()
    models.delete(things.store, things.blobs, model.id)
    assert rows(things) == {}
    assert queue.claim(things.store, 1) is None


def test_deleting_one_analysis_leaves_the_stream_of_another(things: Things) -> None:
    first, second = things.analysis(), things.analysis()
    analyses.delete(things.store, things.blobs, first.id)
    with things.store.read() as session:
        assert events.latest(session, f"analysis:{first.id}") == 0
        assert events.latest(session, f"analysis:{second.id}") == 1


def test_the_network_made_from_weights_goes_with_the_last_model_that_has_it(
    things: Things,
) -> None:
    first, second = things.model(), things.model()
    derived, _ = things.blob(b"the network that was made from the weights")
    with things.store.write() as session:
        for model in (first, second):
            models.get(session, model.id).derived_sha256 = derived
    models.delete(things.store, things.blobs, first.id)
    assert not things.blobs.exists(first.sha256)
    assert things.blobs.exists(derived)
    models.delete(things.store, things.blobs, second.id)
    assert not things.blobs.exists(derived)
