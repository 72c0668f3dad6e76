"""What the command lines of the server and of the worker share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

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


def settings_from(**flags: Any) -> Settings:
    """Flags first, then the environment, then the defaults."""
    return Settings(**{name: value for name, value in flags.items() if value is not None})


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
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise click.UsageError(f"{text!r} is no list of numbers such as 0.1,0.5,0.9.") from None
