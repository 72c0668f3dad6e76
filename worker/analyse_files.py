"""`prunescope analyse`: the same walls and recipes as the worker's, from two files to three."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from app.criteria import known_criteria
from app.domain.curve_json import curves_json, dense_json, judged_by
from app.domain.curves_csv import curves_csv
from app.domain.errors import InvalidInput
from app.domain.goals import Goals, evaluation_of
from app.domain.levels import DEFAULT_SPARSITIES, to_levels, to_sparsity
from app.domain.metrics import Kind
from app.domain.point_facts import PointReader
from app.domain.words import SplitName
from app.store.tables import Model
from worker.analyse_children import Collector, measure_together
from worker.crew import MOST, cores
from worker.progress_bar import progress_bar
from worker.report import write_report
from worker.sandbox.walls import Limits, Walls, take_file
from worker.tasks.analyse import grouped, grouped_numbers
from worker.tasks.children import shares
from worker.tasks.curves import Cell, Wanted
from worker.tasks.descriptions import ImportedDataset, ImportedModel, Unit
from worker.tasks.uploads import IMPORT_SECONDS, PREPARED, disk_bytes, silence

DERIVED = "derived.pt2"


@dataclass(frozen=True)
class Asked:
    """What is to be analysed, and how its files are to be read.

    `evaluation` as `app.domain.goals`, without what is to be as usual. `processes` None: one for
    each core.
    """

    model: Path
    dataset: Path
    criteria: Sequence[str]
    sparsities: Sequence[float] | None = None
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    recalibrate_batch_norm: bool = False
    granularity: str = "weight"
    seed: int = 0
    processes: int | None = None
    task: str = "classification"
    options: Mapping[str, Any] = field(default_factory=dict)
    architecture: str | None = None
    architecture_args: Mapping[str, Any] | None = None

    @property
    def reading(self) -> dict[str, Any]:
        return {"task": self.task, "options": dict(self.options)}


def analyse_files(asked: Asked, out: Path) -> list[Path]:
    """Measure all curves; write `curves.csv`, `curves.json`, `report.html` into `out`.

    Returns the paths written. Raises InvalidFile, InputMismatch, InvalidInput or ChildFailed, and
    UsageError for a criterion that isn't there; nothing is written before everything is measured.
    """
    known = known_criteria()
    unknown = [name for name in asked.criteria if name not in known]
    if unknown or not asked.criteria:
        raise click.UsageError(
            f"There is no criterion {', '.join(unknown) or 'given'}. Known: {', '.join(known)}."
        )
    require_writable(out)
    with TemporaryDirectory(prefix="prunescope-") as folder:
        walls = Walls(Path(folder) / "inside")
        try:
            document = measured(asked, walls, Path(folder))
        finally:
            walls.close()
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "curves.csv", out / "curves.json", out / "report.html"]
    rows = [(c["unit"], c["criterion"], point) for c in document["curves"] for point in c["points"]]
    # As the server sends it: the line ends of RFC 4180 on every system.
    written[0].write_text(curves_csv(Kind(document["task"]), rows), newline="")
    written[1].write_text(json.dumps(document, indent=1) + "\n")
    write_report(document, written[2])
    return written


def require_writable(folder: Path) -> None:
    """Raises InvalidInput if it is clear from the start that nothing can be written there."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise InvalidInput(
            f"Nothing can be written into {folder}: {there} is no folder that you may write to.",
            "Choose another --out.",
        )


def measured(asked: Asked, walls: Walls, folder: Path) -> dict[str, Any]:
    """The shape of `GET /api/analyses/{id}`, less what only a server knows."""
    click.echo(f"reading {asked.model.name} and {asked.dataset.name}", err=True)
    files = {"model": asked.model, "dataset": asked.dataset}
    splits = read_dataset(asked, walls, folder, files)
    units = read_model(asked, walls, folder, files)
    unit_sizes = {unit.id: unit.size for unit in units}
    samples = splits[SplitName.TUNE]
    goals = Goals.of(asked.evaluation, samples=samples)
    levels = to_levels(asked.sparsities or DEFAULT_SPARSITIES)
    cells = [
        (unit, criterion, level)
        for unit in unit_sizes
        for criterion in asked.criteria
        for level in levels
    ]
    refine = int(goals.evaluation["refine"])
    row = Model(units={"weight": [unit.model_dump() for unit in units]})
    dealt = shares(cells, row, asked.processes or min(MOST, cores()))
    children = [
        (
            arguments_of(asked, goals, mine, threads=max(1, cores() // len(dealt))),
            Wanted(mine, unit_sizes, samples, goals, every=goals.mode != "knee", extra=refine),
        )
        for mine in dealt
    ]
    with progress_bar(len(cells), f"{len(cells):,} points") as bar:
        found = Collector(bar, levels)
        measure_together(walls, children, files, found)
    return as_document(asked, found, goals, levels, unit_sizes)


def read_dataset(
    asked: Asked, walls: Walls, folder: Path, files: dict[str, Path]
) -> Mapping[str, int]:
    """The samples of each split; adds what the data set was unpacked into to `files`."""
    limits = Limits(seconds=IMPORT_SECONDS)
    given = {"dataset": asked.dataset}
    with walls.run(
        "import_dataset", asked.reading, given, on_message=silence, limits=limits
    ) as result:
        info = ImportedDataset.of(result.value)
        info.check(asked.task)
        if info.prepared:
            files[PREPARED] = folder / PREPARED
            take_file(result.folder, PREPARED, files[PREPARED], disk_bytes(folder))
    splits: Mapping[str, int] = {str(name): size for name, size in info.splits.items()}
    if SplitName.TUNE not in splits:
        raise InvalidInput(
            "The data set has no tune split.", "Add x_tune and y_tune, or give x and y alone."
        )
    if asked.recalibrate_batch_norm and SplitName.TRAIN not in splits:
        raise InvalidInput(
            "Batch norms are re-estimated from the split train, and the data set has none.",
            "Add x_train and y_train, or leave --recalibrate-batch-norm out.",
        )
    return splits


def read_model(asked: Asked, walls: Walls, folder: Path, files: dict[str, Path]) -> list[Unit]:
    """The prunable units; puts the network made of weights alone into `files`."""
    arguments = {
        "architecture": asked.architecture,
        "architecture_args": dict(asked.architecture_args or {}) or None,
    }
    limits = Limits(seconds=IMPORT_SECONDS)
    given = {"model": asked.model}
    with walls.run("import_model", arguments, given, on_message=silence, limits=limits) as result:
        found = ImportedModel.of(result.value)
        found.check()
        if found.details.kind == "weights":
            raise InvalidInput(
                f"{asked.model.name} holds weights only, so there is no network to run.",
                "Name its --architecture, for example timm:resnet18, or export it as .pt2.",
            )
        if found.derived:
            files["model"] = folder / DERIVED
            take_file(result.folder, DERIVED, files["model"], disk_bytes(folder))
    return [unit for unit in found.units if unit.prunable]


def arguments_of(asked: Asked, goals: Goals, cells: Sequence[Cell], threads: int) -> dict[str, Any]:
    """What a child that is to measure `cells` is told."""
    return asked.reading | {
        "split": SplitName.TUNE,
        "seed": asked.seed,
        "confidence": goals.confidence,
        "tolerance": goals.tolerance,
        "method": goals.method,
        "precision": goals.evaluation["precision"],
        "recalibrate": asked.recalibrate_batch_norm,
        "strata": None,
        "mode": goals.mode,
        "refine": [int(goals.evaluation["refine"])] * len(grouped(cells)),
        "threads": threads,
        "cells": grouped(cells),
        "goals": [goals.base.as_json()],
        "goal_of": grouped_numbers(cells, [0] * len(cells)),
        "known": [],
    }


def as_document(
    asked: Asked,
    found: Collector,
    goals: Goals,
    levels: Sequence[int],
    unit_sizes: Mapping[str, int],
) -> dict[str, Any]:
    assert found.dense is not None
    dense, figures = found.dense.dense, found.dense.figures
    reader = PointReader(goals, dense)
    points = [reader.fresh(found.known[cell]) for cell in sorted(found.known, key=lambda c: c[2])]
    remarks = [each.model_dump() for each in found.said]
    return {
        "model": asked.model.name,
        "dataset": asked.dataset.name,
        "split": SplitName.TUNE.value,
        "granularity": asked.granularity,
        "criteria": list(asked.criteria),
        "sparsities": [to_sparsity(level) for level in levels],
        "evaluation": evaluation_of(asked.evaluation),
        "recalibrate_batch_norm": asked.recalibrate_batch_norm,
        "seed": asked.seed,
        "confidence": goals.confidence,
        **judged_by(dense.kind),
        "cells": {
            "total": found.bar.total,
            "known": 0,
            "done": len(found.known),
            "settled": len(found.settled),
        },
        "samples_evaluated": found.bar.samples,
        "baseline": dense_json(dense, figures.low, figures.high),
        "remarks": remarks,
        "curves": curves_json(list(unit_sizes), asked.criteria, points, reader, remarks),
    }
