"""`python -m worker.export_checkpoint`: one checkpoint file, made from what the database says.

The server starts it. It reads the database itself and has the upload read by a child behind walls,
as a worker does.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.domain.errors import Conflict, InvalidInput
from worker.sandbox.walls import Walls, take_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from app.store.blobs import Blobs
    from app.store.tables import Analysis, Dataset, Experiment, Measurement, Model, Plan, Run
    from worker.sandbox.running import OnMessage
    from worker.sandbox.walls import Limits, Result
    from worker.tasks.pruning import Pruning

FORMATS = ("safetensors", "pth", "masks", "recipe")
CHECKPOINT = "checkpoint"
THREADS = 1


@dataclass(frozen=True)
class Subject:
    """What a checkpoint is made of: the rows of a plan, or of an experiment's run."""

    plan: Plan
    analysis: Analysis
    model: Model
    dataset: Dataset
    measurements: list[Measurement]
    experiment: Experiment | None
    run: Run | None

    @property
    def pruning(self) -> Pruning:
        from worker.tasks.pruning import Pruning
        from worker.tasks.uploads import unit_sizes

        sizes = unit_sizes(self.model)
        if self.experiment is None or self.run is None:
            return Pruning.of_plan(sizes, self.plan, self.analysis)
        seed = self.experiment.settings["seed"]
        return Pruning.of_run(self.run.name, sizes, self.plan, self.analysis, seed)

    def removed(self) -> dict[str, int]:
        """Entries that left each unit."""
        from app.domain.levels import removed_count

        pruning = self.pruning
        if pruning.baseline is None or self.run is None:
            return pruning.removed
        achieved = self.run.sparsities or {}
        return {unit: removed_count(share, pruning.sizes[unit]) for unit, share in achieved.items()}


def load_subject(
    session: Session, plan_id: int | None, experiment_id: int | None, run_name: str
) -> Subject:
    """Raises NotFound, and Conflict for a run that has not finished."""
    from app.store import experiments, plans
    from app.store.tables import Analysis, Dataset, Model

    experiment = run = None
    if experiment_id is not None:
        experiment = experiments.get(session, experiment_id)
        plan_id = experiment.plan_id
        run = next(
            (r for r in experiments.runs(session, experiment_id) if r.name == run_name), None
        )
        if run is None or run.checkpoint_sha256 is None:
            raise Conflict(
                f"The run {run_name!r} has no checkpoint yet.",
                "A run's checkpoint is there once the run has finished.",
            )
    assert plan_id is not None
    plan = plans.get(session, plan_id)
    analysis = session.get_one(Analysis, plan.analysis_id)
    return Subject(
        plan,
        analysis,
        session.get_one(Model, analysis.model_id),
        session.get_one(Dataset, analysis.dataset_id),
        list(plans.measurements(session, plan.id)),
        experiment,
        run,
    )


def write_recipe(subject: Subject, out: Path) -> None:
    """The one format that needs nothing of the upload. Raises ValueError for NaN: not in JSON."""
    from worker.recipe import recipe_document

    document = recipe_document(
        plan=subject.plan,
        analysis=subject.analysis,
        model=subject.model,
        dataset=subject.dataset,
        measurements=subject.measurements,
        pruning=subject.pruning,
        removed=subject.removed(),
        experiment=subject.experiment,
        run=subject.run,
    )
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    out.write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Desk:
    """What reading uploads takes, without a job: blobs, walls, a folder for what is unpacked."""

    blobs: Blobs
    walls: Walls
    data_dir: Path

    def inside(
        self,
        recipe: str,
        arguments: Mapping[str, Any],
        files: Mapping[str, Path],
        on_message: OnMessage,
        *,
        limits: Limits | None = None,
    ) -> Result:
        return self.walls.run(recipe, arguments, files, on_message=on_message, limits=limits)

    def scratch(self, *parts: str) -> Path:
        path = self.data_dir.joinpath("work", *parts)
        path.mkdir(parents=True, exist_ok=True)
        return path


def write_weights(subject: Subject, desk: Desk, file_format: str, out: Path) -> None:
    """Weights or masks, by the recipe `export`."""
    from worker.tasks import uploads

    uploads.require_network(subject.model)
    blobs, pruning = desk.blobs, subject.pruning
    retrained = subject.run is not None and subject.run.checkpoint_sha256 is not None
    if pruning.learns and not (retrained and file_format != "masks"):
        # What leaves follows from training samples, as it did in the analysis.
        files = uploads.files_of(desk, subject.model, subject.dataset)
    else:
        files = {"model": blobs.local_path(uploads.network_sha256(subject.model))}
    if subject.run is not None and subject.run.checkpoint_sha256 is not None:
        files["weights"] = blobs.local_path(subject.run.checkpoint_sha256)
    if subject.model.derived_sha256 is not None:
        files["upload"] = blobs.local_path(subject.model.sha256)
    details = subject.model.details or {}
    keys = {"key_prefix": details.get("key_prefix") or "", "renamed": details.get("renamed") or {}}
    arguments = uploads.reading(subject.dataset) | {
        "format": file_format,
        "keys": keys,
        "pruning": pruning.argument,
    }
    with desk.inside("export", arguments, files, uploads.silence) as result:
        take_file(result.folder, CHECKPOINT, out, uploads.disk_bytes(out.parent))


@click.command()
@click.option("--plan", "plan_id", type=int)
@click.option("--experiment", "experiment_id", type=int)
@click.option("--run", "run_name", default="plan")
@click.option("--format", "file_format", type=click.Choice(FORMATS), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(
    plan_id: int | None, experiment_id: int | None, run_name: str, file_format: str, out: Path
) -> None:
    """Write one checkpoint; an error is one line of JSON on stderr and exit code 1."""
    from worker.limits import lower_priority

    lower_priority()
    try:
        if (plan_id is None) == (experiment_id is None):
            raise InvalidInput("Give either a plan or an experiment.")
        make(plan_id, experiment_id, run_name, file_format, out)
    except Exception as error:
        from worker.failures import describe

        click.echo(json.dumps(describe(error)), err=True)
        sys.exit(1)


def make(
    plan_id: int | None, experiment_id: int | None, run_name: str, file_format: str, out: Path
) -> None:
    # The walls' first process loads torch, which takes the longest: everything else meanwhile.
    walls = None
    if file_format != "recipe":
        os.environ["OMP_NUM_THREADS"] = str(THREADS)
        walls = Walls(out.parent / "inside", threads=THREADS)
    try:
        from app.settings import Settings
        from app.store.blobs import Blobs
        from app.store.store import Store

        settings = Settings()
        store = Store.open(settings.database_url)
        try:
            with store.read() as session:
                subject = load_subject(session, plan_id, experiment_id, run_name)
        finally:
            store.dispose()
        if walls is None:
            write_recipe(subject, out)
        else:
            blobs = Blobs(settings.blob_url, settings.data_dir)
            write_weights(subject, Desk(blobs, walls, settings.data_dir), file_format, out)
    finally:
        if walls is not None:
            walls.close()


if __name__ == "__main__":
    main()
