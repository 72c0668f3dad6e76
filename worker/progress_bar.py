"""How far an analysis is, on one line of a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

STEPS = 1000


class ProgressBar:
    """A bar of points, with what was evaluated for them and the time that is left.

    `total`: the points that were asked for.
    """

    def __init__(self, bar: Any, total: int) -> None:
        self._bar = bar
        self.total = total
        self._began = time.monotonic()
        self.known = self.settled = self.samples = 0
        self._seconds: float | None = None

    def count(self, known: int, settled: int) -> None:
        """So many points are known in some way, and so many as well as they have to be."""
        self.known, self.settled = known, settled
        self._draw(self._bar.pos)

    def advance(self, fraction: float, seconds: float | None, samples: int) -> None:
        """`fraction` of the work is done, `seconds` are left, `samples` were evaluated."""
        self._seconds, self.samples = seconds, samples
        self._draw(round(fraction * STEPS))

    def _draw(self, position: int) -> None:
        # A bar never goes back, though an estimate of what is left may.
        self._bar.update(max(0, min(STEPS, position) - self._bar.pos), self.text)

    @property
    def text(self) -> str:
        """`128 of 418 known, 93 settled, 1,234,567 samples, 0:41 left`."""
        parts = [f"{self.known:,} of {self.total:,} known", f"{self.settled:,} settled"]
        parts.append(f"{self.samples:,} samples")
        if self._seconds is not None:
            parts.append(f"{clock(self._seconds)} left")
        return ", ".join(parts)

    @property
    def summary(self) -> str:
        """What was done, in one line."""
        spent = clock(time.monotonic() - self._began)
        return f"{self.known:,} points from {self.samples:,} evaluated samples in {spent}"


@contextmanager
def progress_bar(total: int, label: str) -> Iterator[ProgressBar]:
    """A bar on stderr; where that is no terminal, the label and at the end a summary alone."""
    with click.progressbar(
        length=STEPS,
        label=label,
        file=sys.stderr,
        width=24,
        show_eta=False,
        item_show_func=lambda text: None if text is None else str(text),
    ) as bar:
        shown = ProgressBar(bar, total)
        yield shown
        shown.advance(1.0, None, shown.samples)
    click.echo(shown.summary, err=True)


def clock(seconds: float) -> str:
    """`0:07`, `12:30`, `3:04:05`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, last = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{last:02}" if hours else f"{minutes}:{last:02}"
