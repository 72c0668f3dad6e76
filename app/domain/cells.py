"""Keys of measured facts.

A cell is a pure function of the model's bytes, the split's samples, the criterion, the unit, the
sparsity, the seed and the way of evaluating. All but criterion, unit and level form its context.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

ENGINE_VERSION = 1


def context_key(
    *,
    model_sha256: str,
    split_fingerprint: str,
    granularity: str,
    evaluation: Mapping[str, Any],
    recalibrate_batch_norm: bool,
    seed: int,
) -> str:
    """Hex sha256 over everything that a point depends on except criterion, unit and level."""
    facts = {
        "engine": ENGINE_VERSION,
        "model": model_sha256,
        "split": split_fingerprint,
        "granularity": granularity,
        "evaluation": dict(evaluation),
        "recalibrate_batch_norm": recalibrate_batch_norm,
        "seed": seed,
    }
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
