"""`python -m worker`: the programs that compute. What needs torch runs in their children."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.commandline import (
    ReadableErrors,
    data_options,
    parse_numbers,
    parse_object,
    settings_from,
)
from app.domain.evaluation_checks import MAX_REFINE, faults_of
from app.domain.goals import DEFAULT_EVALUATION, METHODS, MODES, PRECISIONS
from app.domain.metrics import Task

if TYPE_CHECKING:
    from app.store.store import Store


@click.group(cls=ReadableErrors)
def main() -> None:
    """What computes."""


def threads_for(workers_on_machine: int) -> int:
    """Cores for each worker, so that workers together never want more than there are."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return max(1, cores // max(1, workers_on_machine))


def workers_here(store: Store) -> int:
    """How many workers are at work on this machine."""
    from app.store import workers

    with store.read() as session:
        return sum(worker.host == socket.gethostname() for worker in workers.live(session))


def run_worker(parent: int | None, siblings: int, once: bool, **flags: object) -> None:
    settings = settings_from(**flags)
    settings.require_supported()
    settings.make_private()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s"
    )
    from app.store.store import Store

    store = Store.open(settings.database_url)
    if parent is None:
        store.migrate()
        siblings = workers_here(store) + 1
    # Before torch is loaded in a child, which reads it once.
    threads = int(os.environ.setdefault("OMP_NUM_THREADS", str(threads_for(siblings))))
    from worker.leftovers import inside_folder
    from worker.limits import limit_memory, lower_priority
    from worker.sandbox.walls import Walls

    lower_priority()
    limit_memory()
    walls = Walls(inside_folder(settings.data_dir), threads=threads)
    # The rest is loaded while the walls' first process warms up.
    from worker.loop import WorkerLoop

    try:
        loop = WorkerLoop(store, settings, walls, parent)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.stopping.set())
        loop.run(once=once)
    finally:
        walls.close()
        store.dispose()


@main.command()
@data_options
@click.option("--device", help="auto, cpu, cuda or cuda:N.")
@click.option("--once", is_flag=True, help="End when nothing is queued.")
def worker(once: bool, **flags: object) -> None:
    """One more worker against the same database and blob store.

    \b
    Example:
      prunescope worker --data-dir data
    """
    run_worker(None, 1, once, **flags)


@main.command(hidden=True)
@click.option("--parent", type=int)
@click.option("--siblings", type=int, default=1)
def run(parent: int | None, siblings: int) -> None:
    """A worker that `prunescope serve` looks after; it ends when its parent does."""
    run_worker(parent, siblings, once=False)


def check_evaluation(asked: Mapping[str, Any]) -> None:
    """Raises UsageError for numbers that make no sense, and for those that would do nothing."""
    for name in ("half_width", "relative"):
        if asked[name] is not None and asked["mode"] != "adaptive":
            raise click.UsageError(f"--{name.replace('_', '-')} belongs to --evaluation adaptive.")
    for name, said in faults_of(asked).items():
        raise click.UsageError(f"--{name.replace('_', '-')}: {said}")


@main.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("dataset", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--granularity", type=click.Choice(["weight"]), default="weight", show_default=True)
@click.option(
    "--criteria",
    default="magnitude",
    show_default=True,
    help="Comma-separated: magnitude,wanda. A name that is not there is answered with the list.",
)
@click.option("--sparsities", help="Default: 0.05 to 0.95 in steps of 0.05.")
@click.option(
    "--evaluation",
    type=click.Choice(MODES),
    default=DEFAULT_EVALUATION["mode"],
    show_default=True,
    help="adaptive: samples until each drop is known well enough. exact: all samples. knee: only "
    "the largest sparsity of each layer within the tolerance.",
)
@click.option("--half-width", type=float, help="Adaptive: half an interval's width; default 0.01.")
@click.option(
    "--relative", type=float, help="Adaptive: or this share of the drop, if more; default 0.1."
)
@click.option("--confidence", type=float, help="Of all intervals; default 0.95.")
@click.option("--tolerance", type=float, help="The drop that is tolerated; default 0.01.")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default=DEFAULT_EVALUATION["method"],
    show_default=True,
    help="looks: the error split over looks. sequence: valid at all looks together.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=DEFAULT_EVALUATION["precision"],
    show_default=True,
)
@click.option(
    "--refine",
    type=click.IntRange(0, MAX_REFINE),
    default=0,
    show_default=True,
    help="Further sparsities a layer, around the tolerated drop.",
)
@click.option(
    "--recalibrate-batch-norm",
    is_flag=True,
    help="Re-estimate batch-norm statistics on the train split for every point.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--processes", type=click.IntRange(1, 64), help="Default: one for each core, up to 8."
)
@click.option(
    "--task",
    type=click.Choice([str(task) for task in Task]),
    default=Task.CLASSIFICATION.value,
    show_default=True,
)
@click.option("--options", help='How DATASET is to be read, as JSON: {"preset": "imagenet"}.')
@click.option("--architecture", help="For weights alone: the network they are of (timm:resnet18).")
@click.option("--architecture-args", help='Its arguments, as JSON: {"num_classes": 10}.')
def analyse(
    model: Path,
    dataset: Path,
    out: Path,
    granularity: str,
    criteria: str,
    sparsities: str | None,
    evaluation: str,
    half_width: float | None,
    relative: float | None,
    confidence: float | None,
    tolerance: float | None,
    method: str,
    precision: str,
    refine: int,
    recalibrate_batch_norm: bool,
    seed: int,
    processes: int | None,
    task: str,
    options: str | None,
    architecture: str | None,
    architecture_args: str | None,
) -> None:
    """Compute the curves of MODEL on DATASET with no server.

    Writes curves.csv, curves.json and a self-contained report.html into the folder.

    \b
    Example:
      prunescope analyse resnet20.pt2 cifar10.npz --out curves --sparsities 0.5,0.8,0.9
      prunescope analyse resnet20.pt2 cifar10.npz --out curves --criteria magnitude,wanda \\
        --half-width 0.005 --confidence 0.99 --recalibrate-batch-norm
    """
    asked_of = {
        "mode": evaluation,
        "half_width": half_width,
        "relative": relative,
        "confidence": confidence,
        "tolerance": tolerance,
        "method": method,
        "precision": precision,
        "refine": refine,
    }
    check_evaluation(asked_of)
    from worker.analyse_files import Asked, analyse_files

    asked = Asked(
        model,
        dataset,
        criteria=[part.strip() for part in criteria.split(",") if part.strip()],
        sparsities=parse_numbers(sparsities),
        evaluation={name: value for name, value in asked_of.items() if value is not None},
        recalibrate_batch_norm=recalibrate_batch_norm,
        granularity=granularity,
        seed=seed,
        processes=processes,
        task=task,
        options=parse_object(options, "--options"),
        architecture=architecture,
        architecture_args=parse_object(architecture_args, "--architecture-args"),
    )
    for path in analyse_files(asked, out):
        click.echo(path)


if __name__ == "__main__":
    main(prog_name="prunescope")
