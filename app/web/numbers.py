"""Figures on their way out: JSON knows no NaN, and people like units."""

from __future__ import annotations

import math

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def finite(value: float | None) -> float | None:
    """The value, or None for what JSON can't say (a loss that overflowed)."""
    return value if value is not None and math.isfinite(value) else None


def human_bytes(count: int) -> str:
    """`4294967296` as `4 GiB`."""
    size = float(count)
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} {_UNITS[-1]}"
