"""`prunescope analyse`: the same walls and recipes as the worker's, from two files to three."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from app.domain.errors import InvalidInput
from app.domain.levels import DEFAULT_SPARSITIES, removed_count, to_levels, to_sparsity
from app.domain.metrics import METRICS, Kind, primary
from app.domain.words import CRITERIA, SplitName
from worker.report import write_report
from worker.sandbox.walls import Limits, Walls, take_file
from worker.tasks.curves import Cell, CurveReader, as_argument
from worker.tasks.descriptions import ImportedDataset, ImportedModel
from worker.tasks.reports import Figures
from worker.tasks.uploads import IMPORT_SECONDS, PREPARED, disk_bytes, silence

COLUMNS = (
    "unit",
    "criterion",
    "sparsity",
    "achieved",
    "accuracy",
    "low",
    "high",
    "loss",
    "samples",
    "flips",
    "lost",
    "gained",
)
DERIVED = "derived.pt2"


@dataclass(frozen=True)
class Asked:
    """What is to be analysed, and how its files are to be read."""

    model: Path
    dataset: Path
    criteria: Sequence[str]
    sparsities: Sequence[float] | None = None
    confidence: float = 0.95
    seed: int = 0
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
    unknown = [name for name in asked.criteria if name not in CRITERIA]
    if unknown or not asked.criteria:
        raise click.UsageError(
            f"There is no criterion {', '.join(unknown) or 'given'}."
            f" Known: {', '.join(sorted(CRITERIA))}."
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
    write_csv(document, written[0])
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
    size = read_dataset(asked, walls, folder, files)
    unit_sizes = read_model(asked, walls, folder, files)
    levels = to_levels(asked.sparsities or DEFAULT_SPARSITIES)
    cells = [
        (unit, criterion, level)
        for unit in unit_sizes
        for criterion in asked.criteria
        for level in levels
    ]
    arguments = asked.reading | {
        "split": SplitName.TUNE,
        "seed": asked.seed,
        "confidence": asked.confidence,
        "cells": as_argument(cells),
    }
    label = f"{len(cells)} points"
    with click.progressbar(length=1000, label=label, file=sys.stderr, width=30) as bar:

        def advance(fraction: float) -> None:
            bar.update(max(0, int(fraction * 1000) - bar.pos))

        found = Collector(advance)
        reader = CurveReader(cells, size, found)
        with walls.run("analyse", arguments, files, on_message=reader.hear):
            reader.finish()
        advance(1.0)
    return as_document(asked, found, cells, unit_sizes)


def read_dataset(asked: Asked, walls: Walls, folder: Path, files: dict[str, Path]) -> int:
    """The samples of the tune split; adds what the data set was unpacked into to `files`."""
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
    size = info.splits.get("tune")
    if size is None:
        raise InvalidInput(
            "The data set has no tune split.", "Add x_tune and y_tune, or give x and y alone."
        )
    return size


def read_model(asked: Asked, walls: Walls, folder: Path, files: dict[str, Path]) -> dict[str, int]:
    """The prunable units and their sizes; puts the network made of weights alone into `files`."""
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
    return {unit.id: unit.size for unit in found.units if unit.prunable}


class Collector:
    """Keeps everything; `advance` moves a progress bar to a fraction."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        self.advance = advance
        self.dense: Figures | None = None
        self.found: dict[Cell, Figures] = {}

    def baseline(self, figures: Figures) -> None:
        self.dense = figures

    def points(self, measured: list[tuple[Cell, Figures]]) -> None:
        self.found.update(measured)

    def progress(self, fraction: float, seconds: float | None) -> None:
        self.advance(fraction)


def as_document(
    asked: Asked, found: Collector, cells: Sequence[Cell], unit_sizes: Mapping[str, int]
) -> dict[str, Any]:
    assert found.dense is not None
    curves: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in cells:
        unit, criterion, level = cell
        curve = curves.setdefault(
            (unit, criterion), {"unit": unit, "criterion": criterion, "points": []}
        )
        size, sparsity = unit_sizes[unit], to_sparsity(level)
        achieved = removed_count(sparsity, size) / size
        curve["points"].append(
            {"sparsity": sparsity, "achieved": achieved}
            | shown(found.found[cell])
            | found.found[cell].paired()
        )
    kind = found.dense.kind
    return {
        "model": asked.model.name,
        "dataset": asked.dataset.name,
        "split": SplitName.TUNE.value,
        "granularity": "weight",
        "seed": asked.seed,
        "confidence": asked.confidence,
        "task": kind.value,
        "metric": primary(kind).name,
        "metrics": [
            {
                "name": metric.name,
                "label": metric.label,
                "higher_is_better": metric.higher_is_better,
                "fraction": metric.fraction,
            }
            for metric in METRICS[kind]
        ],
        "baseline": shown(found.dense),
        "curves": list(curves.values()),
    }


def shown(figures: Figures) -> dict[str, Any]:
    columns = figures.columns()
    del columns["correct"]
    return columns


def write_csv(document: dict[str, Any], path: Path) -> None:
    """One row a point: accuracy and loss with their names of old, then every other metric."""
    names = [metric.name for metric in METRICS[Kind(document["task"])]]
    further = [name for name in names if name not in COLUMNS]
    bounds = [f"{name}_{end}" for name in further for end in ("low", "high")]
    with path.open("w", newline="") as file:
        columns = [*COLUMNS, *further, *bounds]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for curve in document["curves"]:
            for point in curve["points"]:
                row = {"unit": curve["unit"], "criterion": curve["criterion"]} | point
                for name in further:
                    figure = point["metrics"][name]
                    row |= {name: figure["value"]}
                    row |= {f"{name}_{end}": figure[end] for end in ("low", "high")}
                writer.writerow(row)
