"""Measure cells along the stream, and tell each again whenever it is known better."""

from __future__ import annotations

import base64
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from app.domain.adaptive import Goal
from app.domain.errors import InvalidInput
from worker.engine.cell_run import CellRun
from worker.engine.curves import CurveEngine, Finding
from worker.engine.finding_facts import remark_on
from worker.engine.flow_options import for_analyses
from worker.engine.objectives import ByClass
from worker.engine.recalibration import has_batch_norm
from worker.engine.search import GridSearch, KneeSearch, RefiningSearch, Search
from worker.engine.sensitivity import Cell
from worker.inside.figures import figures
from worker.inside.job import InsideJob
from worker.inside.opening import Opened, open_both

TELL_SECONDS = 0.1
TELL_AT_ONCE = 200


def run(job: InsideJob) -> dict[str, Any]:
    """Files as `open_both`, arguments `split`, `seed`, `confidence`, `method`, `precision`,
    `recalibrate`, `threads`, `mode`, `tolerance`, `refine`, `cells`, `goals`, `goal_of`, `known`.

    `cells` is `[[unit, criterion, [level, ...]], ...]`; `refine` has for each of these how many
    more levels it may get, `goal_of` for each of its levels the number of its goal in `goals`;
    `known` what earlier runs know: `{unit, criterion, level, samples, sums, state}`, to go on from
    where there is a state.

    Tells `remarks` (`{units: [{unit, criterion, reason}]}`) for what can't be ranked, `preview`
    (`{dense, strata, points}`: all cells on the first samples, beside the dense network on them;
    only where nothing is known yet and the split is not tiny), `baseline` (the dense network's
    figures with `strata`, `members`, `outcome`, `by_class`, `arithmetic`), `points`
    (`{points: [...]}`, as `point_of`) and `progress` (`{fraction, seconds, samples}`).
    """
    arguments = job.arguments
    opened = open_both(job)
    engine = engine_of(opened, arguments)
    criteria = list(dict.fromkeys(criterion for _, criterion, _ in arguments["cells"]))
    refused = engine.prepare(criteria, job.should_stop)
    asked = {(unit, criterion) for unit, criterion, _ in arguments["cells"]}
    reasons = [
        {"unit": unit, "criterion": criterion, "reason": reason}
        for (unit, criterion), reason in refused.items()
        if (unit, criterion) in asked
    ]
    if reasons:
        job.tell("remarks", {"units": reasons})
    goals = [Goal.of(said) for said in arguments["goals"]]
    wanted = [
        (Cell(unit, criterion, level), goals[number])
        for (unit, criterion, levels), numbers in zip(
            arguments["cells"], arguments["goal_of"], strict=True
        )
        if (unit, criterion) not in refused
        for level, number in zip(levels, numbers, strict=True)
    ]
    runs = engine.runs_for(wanted)
    teller = Teller(job, engine, arguments["confidence"])
    known = arguments["known"]

    def dense() -> None:
        teller.tell()
        tell_baseline(job, engine, arguments["confidence"])

    if known:
        # What is known is of strata, which the dense network has to be measured for.
        dense()
        teller.quiet = resumed(engine, runs, known)

    def pulse(fraction: float) -> None:
        teller.tell()
        left = engine.remaining_seconds
        said = {"fraction": fraction, "seconds": left, "samples": engine.evaluated_samples}
        job.tell("progress", said)

    search = search_of(engine, runs, goals[0] if goals else Goal(), arguments)
    on_dense = None if known else dense
    engine.measure(search, teller.add, job.should_stop, pulse, on_dense)
    teller.tell()
    return {}


def engine_of(opened: Opened, arguments: Mapping[str, Any]) -> CurveEngine:
    train = opened.split("train") if "train" in opened.dataset.names else None
    return CurveEngine(
        opened.model,
        opened.split(arguments["split"]),
        opened.units,
        seed=arguments["seed"],
        threads=arguments["threads"],
        train=train,
        recalibrated=arguments["recalibrate"] and has_batch_norm(opened.model),
        options=for_analyses(arguments["precision"]),
        at_random=arguments["method"] == "sequence",
    )


def search_of(
    engine: CurveEngine, runs: list[CellRun], goal: Goal, arguments: Mapping[str, Any]
) -> Search:
    tolerance = arguments["tolerance"]
    refine = {
        (unit, criterion): more
        for (unit, criterion, _), more in zip(arguments["cells"], arguments["refine"], strict=True)
    }

    def make(cell: Cell) -> CellRun:
        return engine.runs_for([(cell, goal)])[0]

    if arguments["mode"] == "knee":
        return KneeSearch(runs, lambda: engine.strata, tolerance, refine, make)
    if any(refine.values()):
        return RefiningSearch(runs, lambda: engine.strata, tolerance, refine, make)
    return GridSearch(runs)


def resumed(
    engine: CurveEngine, runs: list[CellRun], known: list[dict[str, Any]]
) -> set[tuple[str, str, int]]:
    """Let runs go on from what is known; returns the cells that are settled by it already."""
    said = {(each["unit"], each["criterion"], each["level"]): each for each in known}
    settled = set()
    for run in runs:
        keys = [(cell.unit, cell.criterion, cell.level) for cell in run.cells]
        found = [said[key] for key in keys if key in said]
        states = [own for own in found if own["state"] is not None]
        # What can't be gone on from is measured from its first sample.
        with suppress(InvalidInput):
            for own in states[:1]:
                engine.resume(run, own)
        # A run is done only where there is no other cell that waits to be told its figures.
        if len(found) < len(keys):
            continue
        if run.seen:
            run.judge(engine.strata)
        elif found[0].get("drop") is not None and run.resume_sums(found[0], engine.strata):
            settled.update(keys)
    return settled


def tell_baseline(job: InsideJob, engine: CurveEngine, confidence: float) -> None:
    dense = engine.baseline(job.should_stop)
    stream, hits = engine.stream, engine.dense_hits
    arithmetic = engine.arithmetic(job.should_stop)
    members = stream.members.astype(np.uint8).tobytes()
    said = figures(dense, confidence) | {
        "of": dense.samples,
        "strata": stream.strata.as_json() | {"mark": stream.mark},
        "members": packed(members),
        "outcome": None if hits is None else packed(hits.packed),
        "by_class": classes(dense.by_class),
        "arithmetic": None if arithmetic is None else arithmetic.as_json(),
    }
    job.tell("baseline", said)


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 6)).decode()


def classes(found: ByClass | None) -> dict[str, list[int]] | None:
    if found is None:
        return None
    return {"seen": found.seen.tolist(), "right": found.right.tolist()}


class Teller:
    """Tells results in small batches, never later than a fraction of a second."""

    def __init__(self, job: InsideJob, engine: CurveEngine, confidence: float) -> None:
        self.job = job
        self.engine = engine
        self.confidence = confidence
        self.waiting: list[dict[str, Any]] = []
        self.early = False
        self.told_at = time.monotonic()
        self.quiet: set[tuple[str, str, int]] = set()

    def add(self, finding: Finding) -> None:
        cell = finding.cell
        if (cell.unit, cell.criterion, cell.level) in self.quiet:
            return
        self.early = finding.preview
        self.waiting.append(self.point_of(finding))
        late = time.monotonic() - self.told_at >= TELL_SECONDS
        if late or len(self.waiting) >= TELL_AT_ONCE:
            self.tell()

    def tell(self) -> None:
        self.told_at = time.monotonic()
        if not self.waiting:
            return
        points, self.waiting = self.waiting, []
        if not self.early:
            self.job.tell("points", {"points": points})
            return
        dense = self.engine.preview_dense
        assert dense is not None
        said = {
            "dense": figures(dense, self.confidence),
            "strata": self.engine.preview_strata.as_json(),
            "points": points,
        }
        self.job.tell("preview", said)

    def point_of(self, finding: Finding) -> dict[str, Any]:
        """What is known of a cell: figures of the samples seen, and what the rest follows from.

        `sums` by stratum where they are not all; once it is settled the answers of every sample,
        those by class, and a state to go on from.
        """
        cell, run, found = finding.cell, finding.run, finding.raw
        said: dict[str, Any] = {
            "unit": cell.unit,
            "criterion": cell.criterion,
            "level": cell.level,
            "removed": run.removed,
            "figures": figures(found, self.confidence) | {"of": finding.of},
            "sums": None if finding.whole is not None else run.sums.as_json(),
            "settled": finding.settled,
            "remark": remark_on(self.engine, finding),
        }
        if finding.settled:
            hits = self.engine.dense_hits if run.removed == 0 else run.hits
            said["outcome"] = None if hits is None else packed(hits.packed)
            said["by_class"] = classes(found.by_class)
            said["state"] = None if finding.whole is not None else self.engine.packed_state(run)
        return said
