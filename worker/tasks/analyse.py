"""Measure the curves of an analysis: what it asks for minus what is already known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.goals import Goals, evaluation_of
from app.domain.point_facts import PointFacts
from app.domain.words import SplitName
from app.store import analyses, known, points
from app.store.points import DENSE, Cell
from app.store.tables import Analysis, Baseline, Dataset, Job, Model, Outcome
from worker.context import JobContext
from worker.tasks import uploads
from worker.tasks.children import Child, StreamChanged, run_children, shares
from worker.tasks.curves import Wanted
from worker.tasks.outcomes import known_argument
from worker.tasks.points_writer import PointWriter

AT_MOST_TWICE = 2


def analyse(context: JobContext) -> None:
    """Payload `{analysis_id}`. Points are stored, each under its own key, as they become known."""
    for attempt in range(1, AT_MOST_TWICE + 1):
        setting = Setting.of(context)
        try:
            for part in setting.parts():
                measure(setting, part)
        except StreamChanged:
            # What was begun elsewhere, by another arithmetic, is void; whole points stay facts.
            if attempt == AT_MOST_TWICE:
                raise
            with context.write() as session:
                points.forget_parts(session, setting.key)
            continue
        setting.finish()
        return


@dataclass(frozen=True)
class Part:
    """Cells that are measured in one way. `every`: each of them has to be told. `refines`: curves
    may get levels beside the grid."""

    mode: str
    cells: Sequence[Cell]
    every: bool
    refines: bool


@dataclass
class Setting:
    """An analysis with all that is known of it when its job begins."""

    context: JobContext
    analysis: Analysis
    model: Model
    dataset: Dataset
    key: str
    size: int
    goals: Goals
    baseline: Baseline | None
    dense: Outcome | None
    found: dict[Cell, PointFacts]
    outcomes: dict[Cell, Outcome]
    settled: set[Cell]
    counted: int
    cells: list[Cell] = field(default_factory=list[Cell])

    @classmethod
    def of(cls, context: JobContext) -> Setting:
        analysis_id = context.payload["analysis_id"]
        with context.store.read() as session:
            analysis = session.get_one(Analysis, analysis_id)
            model = session.get_one(Model, analysis.model_id)
            dataset = session.get_one(Dataset, analysis.dataset_id)
        uploads.require_network(model)
        size = uploads.split_size(dataset, SplitName.TUNE)
        key = analyses.context_of(analysis, model, dataset)
        with context.write() as session:
            analysis = session.get_one(Analysis, analysis_id)
            analysis.context = key
            baseline = session.get(Baseline, key)
            dense = points.outcome(session, key, DENSE)
            rows = points.known(session, key)
            units = {unit for unit, _, _ in rows}
            outcomes = points.outcomes(session, key, units) if rows else {}
            progress = session.get_one(Job, context.lease.job_id).progress
        reader = known.reader_of(analysis, dataset, baseline)
        found = {cell: reader.fresh(points.facts_of(row)) for cell, row in rows.items()}
        refused = {(each["unit"], each["criterion"]) for each in analysis.remarks or ()}
        asked = [*known.grid_of(analysis, model), *sorted(points.extra_cells(analysis))]
        return cls(
            context=context,
            analysis=analysis,
            model=model,
            dataset=dataset,
            key=key,
            size=size,
            goals=reader.goals,
            baseline=baseline,
            dense=dense,
            found=found,
            outcomes=outcomes,
            settled={cell for cell, facts in found.items() if reader.settled(facts)},
            counted=int(progress.get("samples") or 0),
            cells=[cell for cell in dict.fromkeys(asked) if cell[:2] not in refused],
        )

    def parts(self) -> list[Part]:
        """What has to be measured still; the cells of a knee search and others apart."""
        refine = sum(self.more_levels(grouped(self.cells)))
        missing = [cell for cell in self.cells if cell not in self.settled]
        if self.goals.mode != "knee":
            if not missing and not refine and self.baseline is not None:
                return []
            cells = self.cells if refine else missing
            return [Part(self.goals.mode, cells, every=True, refines=refine > 0)]
        sharper = [cell for cell in missing if self.goals.sharpened(cell[0], cell[2]) is not None]
        search = Part("knee", self.cells, every=False, refines=refine > 0)
        return [search, *([Part("adaptive", sharper, True, False)] if sharper else [])]

    def more_levels(self, curves: Sequence[tuple[str, str, list[int]]]) -> list[int]:
        """How many levels a refinement may add still to each of these curves, as `grouped`."""
        return more_levels(curves, self.analysis.levels, int(self.goals.evaluation["refine"]))

    @property
    def arguments(self) -> dict[str, Any]:
        """What every child of this analysis is told."""
        evaluation = evaluation_of(self.analysis.evaluation)
        strata = self.baseline.strata if self.baseline is not None else None
        return uploads.reading(self.dataset) | {
            "split": SplitName.TUNE,
            "seed": self.analysis.seed,
            "confidence": self.goals.confidence,
            "tolerance": self.goals.tolerance,
            "method": self.goals.method,
            "precision": evaluation["precision"],
            "recalibrate": self.analysis.recalibrate_batch_norm,
            "strata": strata,
        }

    def known_of(self, cells: Sequence[Cell], everything: bool) -> list[dict[str, Any]]:
        """What a child can go on from: states of parts, and for a search all that is known."""
        listed: list[dict[str, Any]] = []
        asked = set(cells)
        curves = {cell[:2] for cell in cells}
        for cell, facts in self.found.items():
            own = self.outcomes.get(cell)
            if cell in asked and cell not in self.settled:
                if own is not None and own.state is not None and not facts.whole:
                    listed.append(known_argument(cell, own.samples, own.sums, own.state))
            elif everything and cell in self.settled and cell[:2] in curves:
                listed.append(
                    known_argument(cell, facts.samples, facts.sums, None)
                    | {"drop": facts.drop, "low": facts.drop_low, "high": facts.drop_high}
                )
        return listed

    def goals_of(self, cells: Sequence[Cell], mode: str) -> tuple[list[dict[str, Any]], list[int]]:
        """The goals that there are, and the number of each cell's own."""
        listed: dict[Any, int] = {}
        numbers = [
            listed.setdefault(self.goals.of_cell(unit, level), len(listed))
            for unit, _, level in cells
        ]
        return [goal.as_json() for goal in listed], numbers

    def finish(self) -> None:
        total = len(self.cells)
        self.context.progress(total, total, 0.0, self.counted)


def measure(setting: Setting, part: Part) -> None:
    """Have children measure one part, each with its share of the units."""
    context, crew = setting.context, setting.context.crew
    most = 1 if crew is None else crew.processes()
    dealt = shares(part.cells, setting.model, most)
    threads = None if crew is None else crew.threads(len(dealt))
    sizes = uploads.unit_sizes(setting.model)
    everything = part.refines or part.mode == "knee"
    writer = PointWriter(
        context,
        setting.key,
        setting.analysis.id,
        setting.baseline,
        setting.dense,
        total=len(setting.cells),
        settled={cell for cell in setting.cells if cell in setting.settled},
        counted=setting.counted,
        searching=part.mode == "knee",
    )
    files = uploads.files_of(context, setting.model, setting.dataset)
    children: list[Child] = []
    for cells in dealt:
        goals, numbers = setting.goals_of(cells, part.mode)
        curves = grouped(cells)
        more = setting.more_levels(curves) if part.refines else [0] * len(curves)
        arguments = setting.arguments | {
            "mode": part.mode,
            "refine": more,
            "threads": threads,
            "cells": curves,
            "goals": goals,
            "goal_of": grouped_numbers(cells, numbers),
            "known": setting.known_of(cells, everything),
        }
        wanted = Wanted(
            cells,
            sizes,
            setting.size,
            setting.goals,
            every=part.every,
            extra=max(more, default=0),
            known=frozenset(cell for cell in cells if cell in setting.settled),
        )
        children.append(Child(arguments, wanted, weight=len(cells)))
    kind = setting.baseline.kind if setting.baseline is not None else None
    run_children(context, children, files, writer, kind)
    setting.baseline = writer.stored
    setting.counted = writer.samples


def grouped(cells: Sequence[Cell]) -> list[tuple[str, str, list[int]]]:
    """`[unit, criterion, [level, …]]` a curve."""
    found: dict[tuple[str, str], list[int]] = {}
    for unit, criterion, level in cells:
        found.setdefault((unit, criterion), []).append(level)
    return [(unit, criterion, levels) for (unit, criterion), levels in found.items()]


def more_levels(
    curves: Sequence[tuple[str, str, list[int]]], grid: Sequence[int], refine: int
) -> list[int]:
    """Of `refine` levels beside the grid, how many each curve has not got yet."""
    own = set(grid)
    return [max(0, refine - sum(level not in own for level in curve[2])) for curve in curves]


def grouped_numbers(cells: Sequence[Cell], numbers: Sequence[int]) -> list[list[int]]:
    """The numbers of the cells as `grouped` groups these."""
    found: dict[tuple[str, str], list[int]] = {}
    for (unit, criterion, _), number in zip(cells, numbers, strict=True):
        found.setdefault((unit, criterion), []).append(number)
    return list(found.values())
