"""The command line. Results go to stdout, progress and logs to stderr; exit codes 0, 1, 2."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from app.commandline import (
    ReadableErrors,
    data_options,
    evaluation_from,
    evaluation_options,
    parse_numbers,
    parse_object,
    parse_words,
    settings_from,
)
from app.domain.metrics import Task
from app.domain.words import Priority


@click.group(cls=ReadableErrors)
@click.version_option(package_name="prunescope")
def main() -> None:
    """Find out which weights a PyTorch network can lose.

    \b
    Example:
      prunescope serve --data-dir data
    """


@main.command()
@data_options
@click.option("--host", help="Address to listen on (127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (8000); 0 = any.")
@click.option(
    "--workers", type=click.IntRange(0, 64), default=1, show_default=True, help="Worker processes."
)
@click.option("--token", help="Sign-in token; made at the first start when not given.")
@click.option("--max-upload-bytes", type=click.IntRange(1), help="Largest upload that is taken.")
@click.option("--device", help="auto, cpu, cuda or cuda:N.")
@click.option("--allowed-host", "allowed_hosts", multiple=True, help="A further name of this host.")
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    help="Children that a worker computes one analysis with; default: its share of the cores.",
)
@click.option("--lease-seconds", type=float, hidden=True)
def serve(workers: int, allowed_hosts: tuple[str, ...], **flags: Any) -> None:
    """Migrate the database, start the web server and its workers, print the sign-in link.

    \b
    Example:
      prunescope serve --port 8000 --workers 2 --data-dir data
    """
    from app.serve import run_server

    settings = settings_from(**flags, allowed_hosts=list(allowed_hosts) or None)
    settings.prepare()
    run_server(settings, workers)


@main.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def worker(arguments: tuple[str, ...]) -> None:
    """Start one more worker against the same database and blob store."""
    hand_over("worker", arguments)


@main.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def analyse(arguments: tuple[str, ...]) -> None:
    """Compute the curves of a model on a data set with no server; write CSV, JSON and HTML."""
    hand_over("analyse", arguments)


def hand_over(command: str, arguments: tuple[str, ...]) -> None:
    """Become the computing program, which loads torch; this one never does."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "worker", command, *arguments])


@main.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("dataset", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, envvar="PRUNESCOPE_URL")
@click.option("--token", help="Default: PRUNESCOPE_TOKEN, or the data directory's token file.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where to find the token.")
@click.option("--name", help="The model's name on the pages; default: the file's.")
@click.option(
    "--architecture",
    help="The network that a file of weights belongs to: timm:resnet18, transformers:bert.",
)
@click.option("--architecture-args", help="Its arguments, JSON: '{\"num_classes\": 10}'.")
@click.option(
    "--task",
    type=click.Choice([task.value for task in Task]),
    help="What the data is for; default: classification.",
)
@click.option("--options", help='How the data is read, JSON: \'{"target": "price"}\'.')
@click.option(
    "--sparsities", help="For example 0.1,0.5,0.9; default: 0.05 to 0.95 in steps of 0.05."
)
@click.option("--criteria", help="For example magnitude,wanda; default: magnitude.")
@evaluation_options
@click.option(
    "--recalibrate-batch-norm",
    is_flag=True,
    help="Re-estimate batch-norm statistics on the train split for every point.",
)
@click.option(
    "--priority",
    type=click.Choice([each.value for each in Priority]),
    help="Whose turn is first; default: normal.",
)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Show progress to the end.")
def push(
    model: Path,
    dataset: Path,
    url: str,
    token: str | None,
    data_dir: Path | None,
    name: str | None,
    architecture: str | None,
    architecture_args: str | None,
    task: str | None,
    options: str | None,
    sparsities: str | None,
    criteria: str | None,
    recalibrate_batch_norm: bool,
    priority: str | None,
    wait: bool,
    **evaluation: Any,
) -> None:
    """Upload a model and a data set, start an analysis, print its link.

    \b
    Example:
      prunescope push resnet20.pt2 cifar10.npz --sparsities 0.2,0.4,0.6,0.8
      prunescope push resnet20.pt2 cifar10.npz --criteria magnitude,wanda --half-width 0.005
      prunescope push resnet18.safetensors birds.zip \\
          --architecture timm:resnet18 --architecture-args '{"num_classes": 200}' \\
          --options '{"preset": "imagenet", "size": 224}'
      prunescope push prices.pt2 houses.csv --task regression --options '{"target": "price"}'
    """
    from app.client import Client

    said = {
        "architecture": architecture,
        "architecture_args": parse_object(architecture_args, "--architecture-args") or None,
        "task": task,
        "options": parse_object(options, "--options") or None,
        "sparsities": parse_numbers(sparsities),
        "criteria": parse_words(criteria),
        "evaluation": evaluation_from(evaluation) or None,
        "recalibrate_batch_norm": recalibrate_batch_norm,
        "priority": priority,
    }
    with Client(url, token or local_token(data_dir)) as client:
        analysis = client.push_files(model, dataset, name=name, report=echo_progress, **said)
        click.echo(analysis.url)
        if wait:
            analysis.wait(report=echo_progress)


@main.command()
@data_options
def doctor(**flags: Any) -> None:
    """Say what this installation can do, and what is wrong with it.

    \b
    Example:
      prunescope doctor --data-dir data
    """
    from app.doctor import examine

    healthy = True
    for finding in examine(settings_from(**flags)):
        healthy = healthy and finding.ok
        click.echo(f"{'ok ' if finding.ok else '!! '} {finding.subject:<12} {finding.text}")
        if finding.hint:
            click.echo(f"    {'':<12} {finding.hint}")
    if not healthy:
        raise SystemExit(1)


def local_token(data_dir: Path | None) -> str:
    settings = settings_from(data_dir=data_dir)
    if settings.token:
        return settings.token
    try:
        return settings.token_file.read_text().strip()
    except OSError:
        raise click.UsageError(
            f"There is no token in {settings.data_dir}. Give --token, or --data-dir of the server."
        ) from None


def echo_progress(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    main()
