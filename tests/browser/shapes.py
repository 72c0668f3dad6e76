"""States of the explore page as the server would give them, made up: a network with a few layers of
each temper, measured as far as a test wants."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.goals import DEFAULT_EVALUATION
from app.domain.metrics import METRICS, Kind, primary
from app.domain.statistics import wilson

SPLIT = 10_000
DENSE = 0.917
GRID = tuple(step / 20 for step in range(1, 20))
JSON = dict[str, Any]


def layer_names(blocks: int = 3) -> list[str]:
    """A small residual network's."""
    names = ["conv1"]
    for stage in range(1, 4):
        for block in range(blocks):
            names += [f"layer{stage}.{block}.conv{n}" for n in (1, 2)]
            if stage > 1 and block == 0:
                names.append(f"layer{stage}.{block}.downsample.0")
    return [f"{name}.weight" for name in [*names, "fc"]]


def true_drop(unit: str, sparsity: float, criterion: str = "magnitude") -> float:
    """How much of the accuracy goes: each layer falls at its own place, other criteria later."""
    draw = random.Random(unit)
    knee, steep = draw.uniform(0.35, 0.95), draw.uniform(5, 14)
    if criterion != "magnitude":
        knee = min(0.97, knee + 0.08 * random.Random(unit + criterion).uniform(-0.4, 1))
    fall = 0.82 / (1 + math.exp(-steep * (sparsity - knee - 0.28)))
    wiggle = 0.002 * math.sin(9 * sparsity + 7 * draw.random())
    return fall * min(1, sparsity * 3) + wiggle * sparsity


def point(
    unit: str, sparsity: float, samples: int, criterion: str = "magnitude", of: int = SPLIT
) -> JSON:
    """One point of the figure from `samples` of `of` samples."""
    drop = true_drop(unit, sparsity, criterion)
    whole = samples >= of
    noise = 0.0 if whole else math.sqrt(max(drop, 0.004) * (1 - samples / of) / samples)
    shaken = random.Random(f"{unit}{sparsity}{samples}{criterion}").gauss(0, 0.6)
    seen = drop + noise * shaken
    accuracy = DENSE - seen
    half = 2.2 * noise
    if whole:
        interval = wilson(round(accuracy * of), of)
        low, high, half = interval.low, interval.high, 0.004
    else:
        low, high = max(0.0, accuracy - half), min(1.0, accuracy + half)
    flips = round(samples * (abs(seen) + 0.03 * sparsity))
    return {
        "sparsity": sparsity, "achieved": sparsity, "accuracy": accuracy, "low": low, "high": high,
        "loss": 0.3 + 2 * max(seen, 0), "kl": 0.02 + 1.4 * max(seen, 0), "samples": samples,
        "of": of, "whole": whole, "interval": "population" if whole else "split",
        "settled": whole or half <= max(0.01, 0.1 * abs(seen)), "preview": samples <= 32 < of,
        "drop": seen, "drop_low": seen - half, "drop_high": seen + half, "remark": None,
        "flips": flips, "lost": flips - flips // 5, "gained": flips // 5,
        "metrics": {"accuracy": {"value": accuracy, "low": low, "high": high}},
    }  # fmt: skip


def units_of(names: Sequence[str]) -> list[JSON]:
    return [
        {"id": name, "size": 432 * (i + 1), "shape": [16, 27 * (i + 1)], "members": [name],
         "prunable": True, "reason": None}
        for i, name in enumerate(names)
    ]  # fmt: skip


def explore_state(
    points: Mapping[tuple[str, str], Sequence[JSON]],
    *,
    names: Sequence[str],
    criteria: Sequence[str] = ("magnitude",),
    grid: Sequence[float] = GRID,
    kind: Kind = Kind.SINGLE_LABEL,
    evaluation: Mapping[str, Any] | None = None,
    **more: Any,
) -> JSON:
    """What explore.html starts from; `points` by (unit, criterion). `more` goes to the analysis."""
    units = units_of(names)
    wanted = len(names) * len(grid) * len(criteria)
    known = [each for listed in points.values() for each in listed]
    settled = sum(bool(each["settled"]) for each in known)
    low_high = wilson(round(DENSE * SPLIT), SPLIT)
    total = sum(unit["size"] for unit in units)
    analysis: JSON = {
        "id": 3, "model_id": 1, "dataset_id": 1, "model_name": "resnet20", "job_id": 9,
        "dataset_name": "cifar10", "status": "running", "error": None, "paused": False,
        "priority": "normal", "created_at": "2026-07-29T10:00:00Z", "granularity": "weight",
        "progress": {"done": settled, "total": wanted, "eta": 12.0, "samples": 41_200},
        "cells": {"total": wanted, "known": 0, "done": len(known), "settled": settled},
        "task": kind.value, "metric": primary(kind).name, "known": 0, "event_id": 0,
        "metrics": [
            {"name": m.name, "label": m.label, "higher_is_better": m.higher_is_better,
             "fraction": m.fraction}
            for m in METRICS[kind]
        ],
        "baseline": {
            "accuracy": DENSE, "low": low_high.low, "high": low_high.high, "loss": 0.3,
            "samples": SPLIT,
            "metrics": {
                "accuracy": {"value": DENSE, "low": low_high.low, "high": low_high.high},
                "loss": {"value": 0.3, "low": None, "high": None},
            },
            "arithmetic": None,
        },
        "criteria": list(criteria), "sparsities": list(grid), "seed": 0, "goals": [],
        "evaluation": dict(DEFAULT_EVALUATION) | dict(evaluation or {}),
        "recalibrate_batch_norm": False, "remarks": [], "units": units,
        "curves": [
            {"unit": name, "criterion": criterion, "fit": [], "knee": None, "remark": None,
             "points": list(points.get((name, criterion), ()))}
            for name in names
            for criterion in criteria
        ],
    }  # fmt: skip
    return {
        "analysis": analysis | more, "plans": [], "plan": None, "experiments": [],
        "facts": {
            "total_parameters": total, "total_macs": 41_000_000, "total_bytes": 4 * total,
            "units": [{"id": u["id"], "size": u["size"], "rows": 16, "itemsize": 4, "macs": 1_000}
                      for u in units],
        },
        "splits": {"train": 40_000, "tune": SPLIT, "test": 10_000},
        "model": {"id": 1, "name": "resnet20"},
        "dataset": {"id": 1, "name": "cifar10", "notes": []},
    }  # fmt: skip


def home_state(train: int = 40_000) -> JSON:
    """What home.html starts from: one model and one data set, ready."""
    model = {
        "id": 1, "name": "resnet20.pt2", "status": "ready", "error": None, "kind": "network",
        "format": "pt2", "bytes": 1_100_000, "parameters": 270_896, "architecture": None,
        "inputs": [{"shape": [None, 3, 32, 32]}], "created_at": "2026-07-29T10:00:00Z",
        "analyses": [],
    }  # fmt: skip
    splits = {"train": train, "tune": SPLIT, "test": 10_000} if train else {"tune": SPLIT}
    dataset = {
        "id": 1, "name": "cifar10.npz", "status": "ready", "error": None, "task": "classification",
        "splits": splits, "input_shape": [3, 32, 32], "classes": 10, "bytes": 180_000_000,
        "format": "npz", "options": {}, "details": {}, "created_at": "2026-07-29T10:00:00Z",
    }  # fmt: skip
    return {
        "models": [model], "datasets": [dataset], "analyses": [], "jobs": [],
        "limits": {"max_upload_bytes": 2_000_000_000},
    }  # fmt: skip


def job(number: int, kind: str = "analyse", state: str = "running", **more: Any) -> JSON:
    return {
        "id": number, "kind": kind, "state": state, "attempt": 1, "max_attempts": 3,
        "progress": {"done": 120, "total": 418, "eta": 12.0, "samples": 9_000}, "error": None,
        "subject": {"kind": "analysis", "id": number}, "analysis_id": None, "label": "resnet20",
        "cancel_requested": False, "paused": False, "priority": "normal",
        "created_at": "2026-07-29T10:00:00Z", "started_at": "2026-07-29T10:00:01Z",
        "finished_at": None,
    } | more  # fmt: skip


def jobs_state(*jobs: JSON) -> JSON:
    worker = {
        "id": 1, "pid": 12, "host": "desk", "isolation": "bubblewrap",
        "started_at": "2026-07-29T10:00:00Z", "heartbeat_at": "2099-07-29T10:00:00Z",
    }  # fmt: skip
    return {"jobs": list(jobs), "workers": [worker]}
