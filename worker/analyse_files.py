"""`prunescope analyse`: the same engine as the worker's, from two files to three files."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

import click

from app.domain.errors import InvalidInput
from app.domain.levels import DEFAULT_SPARSITIES, to_levels, to_sparsity
from app.domain.statistics import wilson
from app.domain.words import SplitName
from worker.engine.criteria import CRITERIA
from worker.engine.evaluation import Evaluation
from worker.engine.formats.datasets import inspect_dataset
from worker.engine.sensitivity import Cell, CellResult, SensitivityEngine
from worker.opening import open_files
from worker.report import write_report

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


def analyse_files(
    model_path: Path,
    dataset_path: Path,
    out: Path,
    *,
    criteria: Sequence[str],
    sparsities: Sequence[float] | None,
    confidence: float,
    seed: int,
) -> list[Path]:
    """Measure all curves; write `curves.csv`, `curves.json`, `report.html` into `out`.

    Returns the paths written. Raises InvalidFile, InputMismatch or InvalidInput, and UsageError for
    a criterion that isn't there; nothing is written before everything is measured.
    """
    unknown = [name for name in criteria if name not in CRITERIA]
    if unknown or not criteria:
        raise click.UsageError(
            f"There is no criterion {', '.join(unknown) or 'given'}."
            f" Known: {', '.join(sorted(CRITERIA))}."
        )
    require_writable(out)
    levels = to_levels(sparsities or DEFAULT_SPARSITIES)
    with TemporaryDirectory(prefix="prunescope-") as cache:
        click.echo(f"reading {model_path.name} and {dataset_path.name}", err=True)
        inspect_dataset(dataset_path, cache_dir=Path(cache))
        opened = open_files(model_path, dataset_path, cache=Path(cache))
        engine = SensitivityEngine(
            opened.model, opened.split(SplitName.TUNE), opened.units, seed=seed
        )
        baseline = engine.baseline()
        cells = [
            Cell(unit, criterion, level)
            for unit in opened.unit_ids(None)
            for criterion in criteria
            for level in levels
        ]
        results = run_with_progress(engine, cells, sys.stderr)
    document = as_document(model_path, dataset_path, baseline, results, confidence, seed)
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


def run_with_progress(
    engine: SensitivityEngine, cells: list[Cell], stream: TextIO
) -> list[CellResult]:
    """All results, in the order of `cells`; a progress bar on a terminal, silence elsewhere."""
    found: dict[Cell, CellResult] = {}
    with click.progressbar(length=1000, label=f"{len(cells)} points", file=stream, width=30) as bar:

        def advance(fraction: float) -> None:
            bar.update(max(0, int(fraction * 1000) - bar.pos))

        engine.run(
            cells, lambda result: found.__setitem__(result.cell, result), lambda: False, advance
        )
        advance(1.0)
    return [found[cell] for cell in cells]


def figures(evaluation: Evaluation, confidence: float) -> dict[str, Any]:
    interval = wilson(evaluation.correct, evaluation.samples, confidence)
    return {
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "low": interval.low,
        "high": interval.high,
        "samples": evaluation.samples,
    }


def as_document(
    model_path: Path,
    dataset_path: Path,
    baseline: Evaluation,
    results: Sequence[CellResult],
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    """The shape of `GET /api/analyses/{id}`, less what only a server knows."""
    curves: dict[tuple[str, str], dict[str, Any]] = {}
    for result in results:
        unit, criterion = result.cell.unit, result.cell.criterion
        curve = curves.setdefault(
            (unit, criterion), {"unit": unit, "criterion": criterion, "points": []}
        )
        curve["points"].append(
            {"sparsity": to_sparsity(result.cell.level), "achieved": result.achieved}
            | figures(result.evaluation, confidence)
            | {
                "flips": result.evaluation.flips,
                "lost": result.evaluation.lost,
                "gained": result.evaluation.gained,
            }
        )
    return {
        "model": model_path.name,
        "dataset": dataset_path.name,
        "split": str(SplitName.TUNE),
        "granularity": "weight",
        "seed": seed,
        "confidence": confidence,
        "baseline": figures(baseline, confidence),
        "curves": list(curves.values()),
    }


def write_csv(document: dict[str, Any], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for curve in document["curves"]:
            for point in curve["points"]:
                writer.writerow({"unit": curve["unit"], "criterion": curve["criterion"]} | point)
