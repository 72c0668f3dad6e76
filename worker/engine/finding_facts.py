"""What the engine finds of a cell, as a point that people are shown."""

from __future__ import annotations

from app.domain.goals import Goals
from app.domain.point_facts import Dense, PointFacts, estimated, whole_drop
from worker.engine.curves import CurveEngine, Finding

NOTHING_REMOVED = "Nothing removed."
NOT_FINITE = "With these weights removed, outputs are NaN or infinite."


def dense_of(engine: CurveEngine) -> tuple[Dense, dict[str, float | None]]:
    """The dense network's figures, and the `low` and `high` of its accuracy.

    Measures it unless it has been. Raises InputMismatch when outputs and labels don't fit.
    """
    said, arithmetic = engine.baseline().as_json(), engine.arithmetic()
    dense = Dense(
        engine.objective.kind,
        said["samples"],
        said["accuracy"],
        said["loss"],
        said["metrics"],
        engine.strata,
        None if arithmetic is None else arithmetic.as_json(),
    )
    return dense, {"low": said["low"], "high": said["high"]}


def preview_dense_of(engine: CurveEngine) -> Dense:
    """The dense network on the samples of a preview, which those of its points are compared with.

    Nothing is known of the split yet: its samples count as of one stratum.
    """
    assert engine.preview_dense is not None
    said = engine.preview_dense.as_json()
    return Dense(
        engine.objective.kind,
        said["samples"],
        said["accuracy"],
        said["loss"],
        said["metrics"],
        engine.preview_strata,
    )


def remark_on(engine: CurveEngine, finding: Finding) -> str | None:
    """What has to be said of a point beside its figures."""
    if finding.run.removed == 0:
        return NOTHING_REMOVED
    if finding.raw.loss is None:
        return NOT_FINITE
    return engine.remark_on(finding.run.unit, finding.run.criterion)


def facts_of(engine: CurveEngine, finding: Finding, dense: Dense, goals: Goals) -> PointFacts:
    """The point with its drop and intervals at the confidence of `goals`.

    Whole ones as they were counted; others are estimates for the split, from their sums.
    """
    run, cell = finding.run, finding.cell
    said = finding.raw.as_json(goals.confidence)
    facts = PointFacts(
        cell.unit,
        cell.criterion,
        cell.level,
        run.size,
        run.removed,
        finding.samples,
        said["accuracy"],
        said["loss"],
        said["low"],
        said["high"],
        said["flips"],
        said["lost"],
        said["gained"],
        metrics=said["metrics"],
        of=finding.of,
        kl=said.get("kl"),
        confidence=goals.confidence,
        correct=said["correct"],
        remark=remark_on(engine, finding),
    )
    if facts.whole:
        drop = whole_drop(dense, facts, goals.confidence)
        if drop is None:
            return facts
        return facts._replace(drop=drop.value, drop_low=drop.low, drop_high=drop.high)
    sums = run.sums.as_json()
    own = estimated(dense, sums, goals.confidence, goals.method)
    return facts._replace(**own, sums=sums)
