"""What the command lines of the server and of the worker share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.domain.errors import PrunescopeError
from app.domain.evaluation_checks import MAX_REFINE, faults_of
from app.domain.goals import DEFAULT_EVALUATION, METHODS, MODES, PRECISIONS
from app.settings import Settings


class ReadableErrors(click.Group):
    """Every error of ours ends as one line and exit code 1, never as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PrunescopeError as error:
            click.echo(f"prunescope: {error.message}", err=True)
            if error.hint:
                click.echo(f"  {error.hint}", err=True)
            ctx.exit(1)
        except OSError as error:
            if error.filename is None:
                raise
            click.echo(f"prunescope: {error.filename}: {error.strerror}", err=True)
            ctx.exit(1)


def settings_from(**flags: Any) -> Settings:
    """Flags first, then the environment, then the defaults. Raises UsageError for nonsense."""
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        faults = [
            f"PRUNESCOPE_{str(fault['loc'][0]).upper()} can't be {fault['input']!r}:"
            f" {fault['msg']}."
            for fault in error.errors()
        ]
        raise click.UsageError(" ".join(faults)) from None
    except SettingsError as error:
        raise click.UsageError(f"The environment's settings can't be read: {error}.") from None


def data_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--data-dir", type=click.Path(path_type=Path), help="Where everything is kept."
        ),
        click.option("--database-url", help="Default: SQLite in the data directory."),
        click.option("--blob-url", help="Default: a folder in the data directory."),
    ):
        function = option(function)
    return function


def evaluation_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How much each point is measured; whatever is not said is left to the server."""
    options = (
        click.option(
            "--evaluation",
            "mode",
            type=click.Choice(MODES),
            help="adaptive (default): samples until each drop is known well enough. exact: all "
            "samples. knee: only the largest sparsity of each layer within the tolerance.",
        ),
        click.option("--half-width", type=float, help="Half an interval's width; default 0.01."),
        click.option("--relative", type=float, help="Or this share of the drop; default 0.1."),
        click.option("--confidence", type=float, help="Of all intervals; default 0.95."),
        click.option("--tolerance", type=float, help="The drop that is tolerated; default 0.01."),
        click.option("--method", type=click.Choice(METHODS), help="Default: looks."),
        click.option("--precision", type=click.Choice(PRECISIONS), help="Default: float32."),
        click.option(
            "--refine",
            type=click.IntRange(0, MAX_REFINE),
            help="Further sparsities a layer, around the tolerated drop; default 0.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


EVALUATION_FLAGS = tuple(DEFAULT_EVALUATION)


def evaluation_from(flags: Mapping[str, Any]) -> dict[str, Any]:
    """What the `evaluation_options` say. Raises UsageError for numbers that make no sense."""
    said = {name: flags[name] for name in EVALUATION_FLAGS if flags.get(name) is not None}
    for name, fault in faults_of(said).items():
        raise click.UsageError(f"--{name.replace('_', '-')}: {fault}")
    return said


def parse_words(text: str | None) -> list[str] | None:
    """`"magnitude,wanda"` as a list. Raises UsageError unless there is a word."""
    if text is None:
        return None
    words = [part.strip() for part in text.split(",") if part.strip()]
    if not words:
        raise click.UsageError(f"{text!r} is no list of names such as magnitude,wanda.")
    return words


def parse_numbers(text: str | None) -> list[float] | None:
    """`"0.1,0.5"` as fractions. Raises UsageError unless there is one, and all are 0 to 1."""
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or not all(0 <= number <= 1 for number in numbers):
        raise click.UsageError(f"{text!r} is no list of fractions from 0 to 1 such as 0.1,0.5,0.9.")
    return numbers


def parse_object(text: str | None, option: str) -> dict[str, Any]:
    """`'{"size": 224}'` as a dict, nothing as an empty one. Raises UsageError for anything else."""
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise click.UsageError(f'{option} takes a JSON object such as {{"size": 224}}.')
    return found
