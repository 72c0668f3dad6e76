"""What an honest child says of cells that have seen a part of the split."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from app.domain.adaptive import Sums
from app.domain.statistics import wilson
from tests.integration.hostile.saying import figures
from tests.integration.office import SIZES
from tests.support.walls import Script, Tell

LARGE = 1000
STREAM = np.random.default_rng(1).permutation(np.repeat(np.arange(8), 125))
"""The stratum of each sample of the stream; the dense network is wrong on stratum 0."""
SEEN = 64
PART_CELLS = [(unit, 250_000) for unit in SIZES]


def text_of(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def bits(right: np.ndarray) -> str:
    return text_of(np.packbits(right).tobytes())


def a_large_baseline() -> dict[str, Any]:
    right = STREAM != 0
    said = scaled(figures(32, dense=32), LARGE, int(right.sum()))
    return said | {
        "lost": 0,
        "gained": 0,
        "flips": 0,
        "kl": None,
        "of": LARGE,
        "strata": {
            "sizes": [125] * 8,
            "scale": 1.0,
            "score": "answers",
            "loss_scale": 1.0,
            "apart": True,
        },
        "members": text_of(STREAM.astype(np.uint8).tobytes()),
        "outcome": bits(right),
        "by_class": {"seen": [600, 400], "right": [int(right.sum()) - 300, 300]},
    }


def scaled(said: dict[str, Any], samples: int, correct: int) -> dict[str, Any]:
    """The same figures of so many samples."""
    interval = wilson(correct, samples)
    accuracy = {"value": correct / samples, "low": interval.low, "high": interval.high}
    return said | {
        "samples": samples,
        "correct": correct,
        "accuracy": accuracy["value"],
        "low": interval.low,
        "high": interval.high,
        "metrics": said["metrics"] | {"accuracy": accuracy},
    }


def a_part(unit: str, level: int, seen: int = SEEN, *, settled: bool = True) -> dict[str, Any]:
    """An honest point of the first samples, half of whose right answers are lost."""
    members = STREAM[:seen]
    dense = members != 0
    right = dense & (np.arange(seen) % 2 == 0)
    lost = int((dense & ~right).sum())
    sums = Sums(lost=lost)
    sums.add(members, dense.astype(float) - right, np.full(seen, 0.5), np.full(seen, 0.25))
    said = scaled(figures(30, dense=32), seen, int(right.sum()))
    return {
        "unit": unit,
        "criterion": "magnitude",
        "level": level,
        "removed": round(level / 1e6 * SIZES[unit]),
        "figures": said | {"lost": lost, "gained": 0, "flips": lost, "of": LARGE, "kl": 0.25},
        "sums": sums.as_json(),
        "settled": settled,
        "outcome": bits(right) if settled else None,
        "by_class": {"seen": [seen], "right": [int(right.sum())]} if settled else None,
        "state": base64.b64encode(b"a state").decode() if settled else None,
        "remark": None,
    }


def a_whole(unit: str, level: int) -> dict[str, Any]:
    return a_part(unit, level, LARGE) | {"sums": None, "state": None}


def parting(
    points: list[dict[str, Any]], baseline: dict[str, Any] | None = None, *more: tuple[str, Any]
) -> Script:
    def child(arguments: Any, files: Any, folder: Path, tell: Tell) -> dict[str, Any]:
        tell("baseline", a_large_baseline() if baseline is None else baseline)
        tell("progress", {"fraction": 0.25, "seconds": 3.0, "samples": 128})
        for point in points:
            tell("points", {"points": [point]})
        for kind, body in more:
            tell(kind, body)
        return {}

    return child
