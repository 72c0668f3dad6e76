"""`python -m worker.export_checkpoint`: one checkpoint file, made from what the database says.

The server starts it as a child, because the server itself never loads torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import load_file
from sqlalchemy.orm import Session

from app.domain.errors import Conflict, InvalidInput
from app.settings import Settings
from app.store import experiments, plans
from app.store.blobs import Blobs
from app.store.store import Store
from app.store.tables import Analysis, Dataset, Experiment, Model, Plan, Run
from worker.engine.baselines import baseline_masks
from worker.engine.formats.checkpoints import (
    pruned_state,
    write_masks,
    write_pth,
    write_recipe,
    write_safetensors,
)
from worker.engine.formats.pt2 import load_model
from worker.engine.formats.sniff import sniff_model_format
from worker.engine.graph import CanonicalModel
from worker.engine.masks import MaskSet
from worker.engine.units import weight_units
from worker.failures import describe
from worker.limits import limit_memory, lower_priority
from worker.recipe import recipe_document
from worker.tasks.retrain import PLAN_RUN, load_state

FORMATS = ("safetensors", "pth", "masks", "recipe")


def load_rows(
    session: Session, plan_id: int | None, experiment_id: int | None, run_name: str
) -> tuple[Plan, Analysis, Model, Dataset, Experiment | None, Run | None]:
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
    return (
        plan,
        analysis,
        session.get_one(Model, analysis.model_id),
        session.get_one(Dataset, analysis.dataset_id),
        experiment,
        run,
    )


def export(
    store: Store,
    blobs: Blobs,
    *,
    plan_id: int | None,
    experiment_id: int | None,
    run_name: str,
    file_format: str,
    out: Path,
) -> None:
    """Write the checkpoint of a plan, or of an experiment's run, to `out`."""
    with store.read() as session:
        plan, analysis, model_row, dataset_row, experiment, run = load_rows(
            session, plan_id, experiment_id, run_name
        )
        measurements = plans.measurements(session, plan.id)
    model_path = blobs.local_path(model_row.sha256)
    model = load_model(model_path, sniff_model_format(model_path))
    masks = masks_for(model, plan, analysis, experiment, run)
    state: Mapping[str, torch.Tensor]
    if run is not None and run.checkpoint_sha256 is not None:
        load_state(model, load_file(blobs.local_path(run.checkpoint_sha256)))
        state = model.state_dict()
    else:
        state = pruned_state(model, masks)
    if file_format == "safetensors":
        write_safetensors(state, out)
    elif file_format == "pth":
        write_pth(state, out)
    elif file_format == "masks":
        write_masks(masks, out)
    else:
        write_recipe(
            recipe_document(
                plan=plan,
                analysis=analysis,
                model=model_row,
                dataset=dataset_row,
                measurements=measurements,
                masks=masks,
                experiment=experiment,
                run=run,
            ),
            out,
        )


def masks_for(
    model: CanonicalModel,
    plan: Plan,
    analysis: Analysis,
    experiment: Experiment | None,
    run: Run | None,
) -> MaskSet:
    units = weight_units(model)
    if experiment is not None and run is not None and run.name != PLAN_RUN:
        return baseline_masks(run.name, model, units, plan.sparsities, experiment.settings["seed"])
    return MaskSet.from_plan(model, units, plan.sparsities, plan.criterion, analysis.seed)


@click.command()
@click.option("--plan", "plan_id", type=int)
@click.option("--experiment", "experiment_id", type=int)
@click.option("--run", "run_name", default=PLAN_RUN)
@click.option("--format", "file_format", type=click.Choice(FORMATS), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(**arguments: Any) -> None:
    """Write one checkpoint; an error is one line of JSON on stderr and exit code 1."""
    lower_priority()
    limit_memory()
    settings = Settings()
    torch.set_num_threads(1)
    try:
        if (arguments["plan_id"] is None) == (arguments["experiment_id"] is None):
            raise InvalidInput("Give either a plan or an experiment.")
        store = Store.open(settings.database_url)
        try:
            export(store, Blobs(settings.blob_url, settings.data_dir), **arguments)
        finally:
            store.dispose()
    except Exception as error:
        click.echo(json.dumps(describe(error)), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
