"""Keys of measured facts.

A cell is a pure function of the model's bytes, the data set's bytes and how they are read, the
split, the criterion, the unit, the sparsity, the seed, the arithmetic and the order in which
samples are seen, which the statistical method decides. All but criterion, unit and level form its
context. How many samples a cell was measured on is no part of the key: all
cells of a context see the samples in the same order, so that a point from more of them only says
the same more sharply. Everything in a key is known before anything uploaded is opened: whoever
opens it behind walls has no say in where its results are stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

ENGINE_VERSION = 4


def context_key(
    *,
    model_sha256: str,
    dataset_sha256: str,
    task: str,
    options: Mapping[str, Any] | None,
    split: str,
    granularity: str,
    precision: str,
    method: str,
    recalibrate_batch_norm: bool,
    seed: int,
) -> str:
    """Hex sha256 over everything that a point depends on except criterion, unit and level.

    `model_sha256` is that of the network that runs: of the `.pt2` made from uploaded weights, where
    there is one. `options` None and {} are the same.
    """
    return _digest(
        {
            "engine": ENGINE_VERSION,
            "model": model_sha256,
            "dataset": dataset_key(dataset_sha256, task, options),
            "split": split,
            "granularity": granularity,
            "precision": precision,
            "method": method,
            "recalibrate_batch_norm": recalibrate_batch_norm,
            "seed": seed,
        }
    )


def dataset_key(sha256: str, task: str, options: Mapping[str, Any] | None) -> str:
    """Hex sha256 over what the samples of a data set depend on: the file, and how it is read.

    Data sets of equal keys share the file that a large or packed upload is unpacked into.
    """
    return _digest({"file": sha256, "task": task, "options": dict(options or {})})


def _digest(facts: Mapping[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
