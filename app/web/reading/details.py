"""One point in full, with what each class lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.domain.errors import NotFound
from app.domain.levels import to_level
from app.store import points as store_points
from app.store.tables import Outcome
from app.web.reading.analyses import Found, points_of
from app.web.views.common import JSON


def point_view(
    session: Session, found: Found, unit: str, criterion: str | None, sparsity: float
) -> JSON:
    """GET /api/analyses/{id}/point. Raises NotFound for one that the analysis doesn't have."""
    chosen, level = criterion or found.row.criteria[0], to_level(sparsity)
    for point in points_of(session, found, units=[unit], levels=[level]):
        if point.criterion == chosen:
            break
    else:
        raise NotFound(
            f"Analysis {found.row.id} has no point of {unit[:200]} by {chosen} at {sparsity:g}.",
            "It may not be measured yet; GET /api/analyses/{id} has all points.",
        )
    context = found.row.context or ""
    own = store_points.outcome(session, context, (unit, chosen, level))
    dense = store_points.outcome(session, context, store_points.DENSE)
    names = (found.dataset.details or {}).get("class_names") or []
    return found.reader.told(point) | {"classes": classes_view(own, dense, names)}


def classes_view(own: Outcome | None, dense: Outcome | None, names: Sequence[str]) -> list[JSON]:
    """Counts of right answers by class; empty where there are no classes or too many."""
    if own is None or dense is None or own.by_class is None or dense.by_class is None:
        return []
    pruned, intact = _counts(own.by_class), _counts(dense.by_class)
    whole = own.samples >= dense.samples
    return [
        {
            "class": number,
            "name": names[number] if number < len(names) else None,
            "samples": seen,
            "dense": dense_right if whole else None,
            "pruned": right,
            "dense_samples": dense_seen,
            "dense_right": dense_right,
        }
        for number, ((seen, right), (dense_seen, dense_right)) in enumerate(
            zip(pruned, intact, strict=True)
        )
    ]


def _counts(by_class: Mapping[str, Any]) -> list[tuple[int, int]]:
    return list(zip(by_class["seen"], by_class["right"], strict=True))
