"""What the command lines of the server and of the worker share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.domain.errors import PrunescopeError
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
