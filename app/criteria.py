"""The criteria of this installation: the built-in ones, and the operator's own by entry point."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

from app.domain.criteria import CRITERIA, CriterionFacts, Needs

GROUP = "prunescope.criteria"


def known_criteria() -> Mapping[str, CriterionFacts]:
    """Every criterion by name. Operators' own are listed by name alone, without loading them.

    A package registers one in its `pyproject.toml`, in the group `prunescope.criteria`; see
    `worker.engine.criteria.registry`. A built-in name can't be taken.
    """
    known = dict(CRITERIA)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        package = point.dist.name if point.dist is not None else "another package"
        known.setdefault(
            point.name,
            CriterionFacts(
                point.name,
                point.name,
                f"Registered by {package}.",
                point.value,
                Needs.UNKNOWN,
            ),
        )
    return known
