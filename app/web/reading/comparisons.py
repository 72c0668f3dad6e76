"""Criteria side by side: who is ahead where, and whether by more than noise."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from app.domain.comparison import Bits, Difference, answers_of_a_sample, compare, unpack
from app.domain.levels import to_sparsity
from app.domain.point_facts import PointFacts
from app.store import points as store_points
from app.store.points import Cell
from app.store.tables import Outcome
from app.web.reading.analyses import Found, points_of
from app.web.views.common import JSON

UNITS_AT_ONCE = 50


@dataclass(frozen=True)
class Answers:
    """The stored answers of some units' cells, unpacked as they are asked for."""

    outcomes: Mapping[Cell, Outcome]
    dense: Outcome | None

    @cached_property
    def members(self) -> NDArray[np.uint8] | None:
        """The stratum of each sample of the stream."""
        if self.dense is None or self.dense.state is None:
            return None
        return np.frombuffer(zlib.decompress(self.dense.state), dtype=np.uint8)

    def of(self, cell: Cell) -> Bits | None:
        row = self.outcomes.get(cell)
        dense = self.dense
        if row is None or row.hits is None or dense is None or dense.hits is None:
            return None
        each = answers_of_a_sample(len(zlib.decompress(dense.hits)), dense.samples)
        return unpack(zlib.decompress(row.hits), row.samples, each)


def view(session: Session, found: Found) -> JSON:
    """GET /api/analyses/{id}/comparison: `items` by unit and level, and the best of each unit."""
    if len(found.row.criteria) < 2 or found.row.context is None:
        return {"items": [], "units": []}
    by_unit: dict[str, list[PointFacts]] = defaultdict(list)
    for point in points_of(session, found):
        by_unit[point.unit].append(point)
    dense = store_points.outcome(session, found.row.context, store_points.DENSE)
    items: list[JSON] = []
    best: list[JSON] = []
    names = list(by_unit)
    for start in range(0, len(names), UNITS_AT_ONCE):
        some = names[start : start + UNITS_AT_ONCE]
        answers = Answers(store_points.outcomes(session, found.row.context, some), dense)
        for unit in some:
            levels = _levels(by_unit[unit])
            compared = [_compared(found, listed, answers) for listed in levels]
            items += compared
            best += _best(unit, levels, compared)
    return {"items": items, "units": best}


def _levels(points: Sequence[PointFacts]) -> list[list[PointFacts]]:
    """The points of each level where two criteria at least are known, the smallest drop first."""
    levels: dict[int, list[PointFacts]] = defaultdict(list)
    for point in points:
        if point.drop is not None:
            levels[point.level].append(point)
    return [
        sorted(listed, key=lambda point: (point.drop, point.criterion))
        for _, listed in sorted(levels.items())
        if len(listed) > 1
    ]


def _compared(found: Found, points: Sequence[PointFacts], answers: Answers) -> JSON:
    first, second = points[:2]
    difference = _difference(found, first, second, answers)
    if difference is not None and difference.value < 0:
        # Drops may be of different samples; what both saw decides.
        first, second, difference = second, first, difference.reversed()
    confidence = found.reader.goals.confidence
    return {
        "unit": first.unit,
        "sparsity": to_sparsity(first.level),
        "best": first.criterion,
        "runner_up": second.criterion,
        "difference": difference and difference.value,
        "low": difference and difference.low,
        "high": difference and difference.high,
        "p": difference and difference.p,
        "samples": difference and difference.samples,
        "significant": difference and difference.significant(confidence),
    }


def _difference(
    found: Found, first: PointFacts, second: PointFacts, answers: Answers
) -> Difference | None:
    own = answers.of((first.unit, first.criterion, first.level))
    other = answers.of((second.unit, second.criterion, second.level))
    if own is None or other is None:
        return None
    dense = found.reader.dense
    return compare(
        own,
        other,
        confidence=found.reader.goals.confidence,
        strata=None if dense is None else dense.strata,
        members=answers.members,
    )


def _best(
    unit: str, levels: Sequence[Sequence[PointFacts]], compared: Sequence[JSON]
) -> list[JSON]:
    """The best criterion of one unit, over the levels where as many are known as anywhere."""
    most = max((len(listed) for listed in levels), default=0)
    full = [listed for listed in levels if len(listed) == most]
    if not full:
        return []
    drops: dict[str, list[float]] = defaultdict(list)
    for listed in full:
        for point in listed:
            drops[point.criterion].append(point.drop or 0.0)
    everywhere = {
        name: sum(known) / len(known) for name, known in drops.items() if len(known) == len(full)
    }
    if len(everywhere) < 2:
        return []
    best = min(everywhere, key=lambda name: (everywhere[name], name))
    sure = [each["best"] for each in compared if each["significant"]]
    return [
        {
            "unit": unit,
            "best": best,
            "significant": best in sure and all(name == best for name in sure),
            "drops": everywhere,
            "levels": len(full),
        }
    ]
