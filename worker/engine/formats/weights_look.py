"""A look at weights without their network: distributions, and what magnitude would remove.

It measures no accuracy and is no analysis: without the network nobody knows what a weight is for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.engine.formats.stored import StoredTensor, itemsize, stream_stored

BINS = 40
PERCENTS = (10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99)


def look_at(path: Path, tensors: Mapping[str, StoredTensor]) -> dict[str, Any]:
    """`{tensors: [...], totals: {...}}` as JSON; one tensor is in memory at a time.

    Of each tensor: `key`, `also` (its other keys), `shape`, `dtype`, `numel`, `zeros`, `nan`,
    `inf`, and of its finite values `min`, `max`, `mean`, `std`, `histogram` `{low, high, counts}`
    and `thresholds`: by percent, the magnitude of the largest weight that goes when that share of
    the tensor's weights, the smallest ones, is removed. Null where there is no such number.
    Raises InvalidFile.
    """
    rows: dict[str, dict[str, Any]] = {}
    for keys, stored, tensor in stream_stored(path, tensors):
        row = {"key": keys[0], "also": list(keys[1:]), "shape": list(stored.shape)}
        row["dtype"] = str(stored.dtype).removeprefix("torch.")
        row["numel"] = stored.numel
        rows[keys[0]] = row | _figures(tensor)
    ordered = [rows[key] for key in tensors if key in rows]
    weights = [row for row in ordered if row["thresholds"] is not None]
    totals = {
        "tensors": len(ordered),
        "names": len(tensors),
        "numel": sum(row["numel"] for row in ordered),
        "bytes": sum(t.numel * itemsize(t.dtype) for t in set(tensors.values())),
        "weights": sum(row["numel"] for row in weights),
        "zeros": sum(row["zeros"] for row in weights),
        "nan": sum(row["nan"] for row in ordered),
        "inf": sum(row["inf"] for row in ordered),
    }
    return {"tensors": ordered, "totals": totals}


def _figures(tensor: Tensor) -> dict[str, Any]:
    values = _as_numpy(tensor)
    nan, inf = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    result: dict[str, Any] = {"zeros": int((values == 0).sum()), "nan": nan, "inf": inf}
    thresholds = None
    if tensor.dtype.is_floating_point and values.size:
        magnitudes = np.abs(values)
        magnitudes.sort()
        thresholds = {str(percent): _threshold(magnitudes, percent) for percent in PERCENTS}
    finite = values[np.isfinite(values)] if nan or inf else values
    none = dict.fromkeys(("min", "max", "mean", "std", "histogram"))
    if not finite.size:
        return result | none | {"thresholds": thresholds}
    low, high = float(finite.min()), float(finite.max())
    result |= {
        "min": _short(low),
        "max": _short(high),
        "mean": _short(float(finite.mean(dtype=np.float64))),
        "std": _short(float(finite.std(dtype=np.float64))),
        "histogram": _histogram(finite, low, high),
        "thresholds": thresholds,
    }
    return result


def _as_numpy(tensor: Tensor) -> NDArray[Any]:
    """Values in a number type that NumPy computes with: half precision becomes float32."""
    flat = tensor.detach().reshape(-1)
    if flat.dtype.is_complex:
        flat = flat.abs()
    if flat.dtype in (torch.float16, torch.bfloat16):
        flat = flat.float()
    if not flat.dtype.is_floating_point:
        flat = flat.double()
    return flat.numpy()


def _threshold(magnitudes: NDArray[Any], percent: int) -> float | None:
    """As a plan rounds: `round(share * n)` weights go, the smallest first."""
    count = round(percent / 100 * len(magnitudes))
    return _short(float(magnitudes[count - 1])) if count else 0.0


def _histogram(values: NDArray[Any], low: float, high: float) -> dict[str, Any] | None:
    if low == high:
        return {"low": _short(low), "high": _short(high), "counts": [len(values)]}
    spread = high - low
    if not math.isfinite(spread) or spread < BINS * float(np.finfo(values.dtype).tiny):
        return None
    held = np.finfo(values.dtype)
    finest = float(held.eps) * max(abs(low), abs(high))
    if spread > float(held.max) or spread < 2 * BINS * finest:
        values = values.astype(np.float64)
    try:
        counts, _ = np.histogram(values, bins=BINS, range=(low, high))
    except ValueError:  # more bars than there are numbers between the two
        return None
    return {"low": _short(low), "high": _short(high), "counts": counts.tolist()}


def _short(value: float) -> float | None:
    """Six digits: what a page shows; files of many tensors stay small."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
