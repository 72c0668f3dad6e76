"""Whole analyses by every way of evaluating, against the naive loop.

Times are CPU seconds of one thread. The naive loop takes its turns between the others, so that a
busy machine hurts all of them, and is counted up from what a sample of a cell costs it. Run with
`-s` to see the tables; set PRUNESCOPE_BENCH_DATA to have ResNet-20 on real images.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.benchmarks.analysis_networks import data_folder

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
MANY = int(os.environ.get("PRUNESCOPE_BENCH_SAMPLES", "4000"))
NETWORKS = {"resnet18": 256, "lstm": 1000, "vit6": 128, "bert12": 64}
SHARE = 4
"""Every so manieth unit of the larger networks: enough for a ratio."""
WITH_DATA = pytest.mark.skipif(data_folder() is None, reason="PRUNESCOPE_BENCH_DATA is not set")


class Contestant:
    """A process that measures in one way on request."""

    def __init__(self, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.curve_contestant"]
            + [str(each) for each in arguments],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == "ready"

    def start(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def finish(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def round(self) -> dict[str, Any]:
        self.start()
        return self.finish()

    def close(self) -> None:
        self._process.communicate(timeout=60)


def compared(
    network: str, samples: int, ways: list[str], share: int = 1
) -> dict[str, dict[str, Any]]:
    """Each way once, the naive one before and after each; prints a row a way.

    `share`: every so manieth unit.
    """
    naive = Contestant(network, samples, "naive", 0, share)
    naive.round()
    found: dict[str, dict[str, Any]] = {}
    print(f"\n{network}, {samples} samples")
    try:
        for way in ways:
            contestant = Contestant(network, samples, way, 0, share)
            costs = [naive.round()["cpu"]]
            found[way] = own = contestant.round()
            costs.append(naive.round()["cpu"])
            contestant.close()
            loop = median(costs) * own["cells"] * samples
            seen = own["evaluated"] / (own["cells"] * samples)
            print(
                f"  {way:18} {own['cpu']:8.2f} CPU s, naive {loop:9.1f}: {loop / own['cpu']:6.1f}"
                f" times as fast, {own['cpu'] / own['floor']:4.1f} times the floor;"
                f" {100 * seen:5.1f} % of the samples; all previewed after"
                f" {own['preview']:5.2f} s, all units measured after {own['first']:5.2f} s"
            )
    finally:
        naive.close()
    return found


@WITH_DATA
def test_a_trained_network_on_many_real_images() -> None:
    ways = ["adaptive", "adaptive-bfloat16", "knee"]
    if MANY >= 10_000:
        ways += ["half", "half-bfloat16"]
    found = compared("resnet20", MANY, ways)
    table = found["adaptive"]["table"]
    for way in ways[1:]:
        # Two intervals for one figure overlap, unless one of them misses it.
        apart = [
            key
            for key, (_, low, high, _) in found[way]["table"].items()
            if low > table[key][2] or high < table[key][1]
        ]
        print(
            f"  {len(apart)} of {len(found[way]['table'])} points contradict adaptive ones: {way}"
        )
        assert len(apart) <= 0.02 * len(table) + 1


@WITH_DATA
def test_exact_curves_of_a_trained_network() -> None:
    found = compared("resnet20", 256, ["exact", "exact-bfloat16"])
    differ = sum(
        own[0] != found["exact-bfloat16"]["table"][key][0]
        for key, own in found["exact"]["table"].items()
    )
    print(f"  {differ} of {len(found['exact']['table'])} points differ in bfloat16")


@pytest.mark.parametrize("network", NETWORKS)
def test_exact_curves(network: str) -> None:
    found = compared(network, NETWORKS[network], ["exact", "exact-bfloat16"], SHARE)
    assert found["exact"]["table"].keys() == found["exact-bfloat16"]["table"].keys()


@WITH_DATA
@pytest.mark.skipif(find_spec("nni") is None, reason="NNI 2.10.1 is not installed")
def test_beside_nni() -> None:
    """A sample of a cell by NNI's own loop, against exact curves of the same network; the shares
    of right answers are the same ones."""
    samples = 256
    peer, naive = (Contestant("resnet20", samples, way) for way in ("nni", "naive"))
    for each in (peer, naive):
        each.round()
    before, own_loop = peer.round(), naive.round()["cpu"]
    exact = Contestant("resnet20", samples, "exact").round()
    costs = [before["cpu"], peer.round()["cpu"]]
    share = exact["cpu"] / (exact["cells"] * samples)
    dense = exact["dense"]
    same = [
        abs(dense - exact["table"][key][0] - score) < 1e-9
        for key, score in before["table"].items()
        if key in exact["table"]
    ]
    print(
        f"\nNNI {1e3 * median(costs):.2f} ms a sample of a cell, naive {1e3 * own_loop:.2f},"
        f" exact {1e3 * share:.2f}: {median(costs) / share:.1f} times as fast as NNI;"
        f" {sum(same)} of {len(same)} figures are the same"
    )
    assert same
    assert all(same)


@WITH_DATA
def test_how_soon_there_is_something_to_see() -> None:
    """Two processes with half of the units each, as a worker on two cores has them."""
    for way in ("adaptive", "adaptive-bfloat16"):
        pair = [Contestant("resnet20", MANY, way, part, 2) for part in range(2)]
        for each in pair:
            each.start()
        both = [each.finish() for each in pair]
        for each in pair:
            each.close()
        print(
            f"\n{way}, {MANY} samples, two processes: all previewed after"
            f" {max(each['preview'] for each in both):.2f} s, all units measured after"
            f" {max(each['first'] for each in both):.2f} s, everything after"
            f" {max(each['wall'] for each in both):.2f} s"
        )


@WITH_DATA
def test_memory_does_not_grow_with_the_split() -> None:
    """Resident memory beyond that of the process with its network and data, at most."""
    grown = {}
    for samples in (2000, 10_000):
        contestant = Contestant("resnet20", samples, "knee-bfloat16")
        grown[samples] = contestant.round()["grown"] / 2**20
        contestant.close()
        print(f"\n{samples} samples: {grown[samples]:.0f} MiB more")
    assert max(grown.values()) < 200
    assert grown[10_000] - grown[2000] < 50


@WITH_DATA
def test_two_processes_against_one() -> None:
    """The same curves by one process, and by two with half of the units each: wall-clock time.

    Beside them one process with two threads: that a worker computes in processes of one thread each
    rests on this comparison.
    """
    alone = Contestant("resnet20", 256, "exact")
    threaded = Contestant("resnet20", 256, "exact", 0, 1, 2)
    pair = [Contestant("resnet20", 256, "exact", part, 2) for part in range(2)]
    ratios, threads = [], []
    for _ in range(2):
        one = alone.round()
        threads.append(one["wall"] / threaded.round()["wall"])
        began = time.perf_counter()
        for each in pair:
            each.start()
        both = [each.finish() for each in pair]
        ratios.append(one["wall"] / (time.perf_counter() - began))
        assert {**both[0]["table"], **both[1]["table"]} == one["table"]
    for each in (alone, threaded, *pair):
        each.close()
    print(
        f"\non {os.cpu_count()} cores: two processes {max(ratios):.2f} times as fast as one,"
        f" one with two threads {max(threads):.2f} times"
    )
