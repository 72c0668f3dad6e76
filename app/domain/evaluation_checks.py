"""What can be wrong about how an analysis is asked to be evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.domain.goals import DEFAULT_EVALUATION, METHODS, MODES, PRECISIONS

MAX_REFINE = 20
_WORDS = {"mode": MODES, "method": METHODS, "precision": PRECISIONS}
# The lowest and the highest, and whether they may be taken themselves.
_FRACTIONS = {
    "half_width": (0, 1, False),
    "relative": (0, 1, True),
    "tolerance": (0, 1, True),
    "confidence": (0.5, 1, False),
}


def faults_of(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """A sentence for each field that makes no sense, by field; None stands for what is usual."""
    faults: dict[str, str] = {}
    for name, value in evaluation.items():
        if name not in DEFAULT_EVALUATION:
            known = ", ".join(DEFAULT_EVALUATION)
            faults[name] = f"There is no {name} in an evaluation; there are {known}."
        elif value is not None and (said := _fault(name, value)):
            faults[name] = said
    return faults


def _fault(name: str, value: Any) -> str | None:
    if name in _WORDS:
        return None if value in _WORDS[name] else f"It is one of {', '.join(_WORDS[name])}."
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in _FRACTIONS:
        low, high, inclusive = _FRACTIONS[name]
        if number and (low < value < high or (inclusive and low <= value <= high)):
            return None
        usual = DEFAULT_EVALUATION[name]
        return f"It is a fraction between {low} and {high}, for example {usual}."
    if number and float(value).is_integer() and 0 <= value <= MAX_REFINE:
        return None
    return f"It is a whole number from 0 to {MAX_REFINE}."
