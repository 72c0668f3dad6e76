"""From asking for a job to the first line of its recipe, behind every level of walls."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.walled import Walled, make_walled
from worker.sandbox.isolation import LEVELS

RUNS = 50
pytestmark = pytest.mark.benchmark


@pytest.fixture
def all_walled(tmp_path: Path) -> Iterator[list[Walled]]:
    from worker.sandbox.isolation import missing

    made = [make_walled(level, tmp_path / level) for level in LEVELS if not missing(level)]
    yield made
    for walled in made:
        walled.walls.close()


def test_warm_start(all_walled: list[Walled]) -> None:
    """Levels take turns, so that what else the machine does falls on all of them."""
    first: dict[str, list[float]] = {walled.level: [] for walled in all_walled}
    whole: dict[str, list[float]] = {walled.level: [] for walled in all_walled}
    for _ in range(RUNS):
        for walled in all_walled:
            started = time.perf_counter()
            moments: list[float] = []
            walled.run(
                "echo",
                {"messages": 1},
                on_message=lambda *_, to=moments: to.append(time.perf_counter()),
            ).discard()
            first[walled.level].append(moments[0] - started)
            whole[walled.level].append(time.perf_counter() - started)
    print()
    for level, seconds in first.items():
        line = f"{level:<11} first word {_shown(seconds)}; whole round trip {_shown(whole[level])}"
        print(line)
        assert len(seconds) == RUNS


def _shown(seconds: list[float]) -> str:
    cuts = statistics.quantiles(seconds, n=20)
    return f"p50 {1000 * cuts[9]:.1f} ms, p95 {1000 * cuts[18]:.1f} ms"
